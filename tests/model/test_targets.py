"""The cache of a target against full forwards: every law, any prompts, any drafts, rows that finish, move or rewind."""

import numpy as np
import pytest
import torch
from support import BOS, KINDS, Uncached, random_bytes, tiny_model

from bytelm.errors import DecodingError
from bytelm.model import targets as targets_module
from bytelm.model.targets import NextTarget, PatchTarget, make_target
from bytelm.nn.kv_cache import CacheView

LENGTHS = [0, 1, 2, 3, 4, 17]
NUM_NEW, MAX_DRAFT = 40, 16


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


class Rows:
    """What has been committed to each row, and where its prompt ends."""

    def __init__(self, lengths, seed):
        self.prompts = [random_bytes(n, seed + n) for n in lengths]
        self.committed = [[*BOS.tolist(), *p.tolist()] for p in self.prompts]
        self.starts = [len(row) for row in self.committed]
        self.finished = [False] * len(lengths)

    def commit(self, emitted, counts):
        for row, count in enumerate(counts):
            self.committed[row] += emitted[row, :count].tolist()

    def generated(self, row):
        return len(self.committed[row]) - self.starts[row]

    def select(self, rows):
        for name in ("prompts", "committed", "starts", "finished"):
            setattr(self, name, [list(x) if isinstance(x := getattr(self, name)[r], list) else x for r in rows])

    @property
    def live(self):
        return [row for row, finished in enumerate(self.finished) if not finished]


def check_block(uncached, law, rows, block, draft, unit, rng):
    """Every state of the block, after every prefix of its unit, equals a full forward of what it stands for."""
    num_states = draft.shape[1] // unit + 1
    assert block.num_states == num_states
    prefix = torch.from_numpy(rng.integers(0, 256, (len(rows.committed), num_states, unit)))
    for place in range(unit):
        found = block.logits(prefix[:, :, :place])
        for row in rows.live:
            for state in range(num_states):
                told = [*draft[row, : state * unit].tolist(), *prefix[row, state, :place].tolist()]
                close(found[row, state], uncached.logits(law, [*rows.committed[row], *told], rows.starts[row]))


def draw_emission(rng, draft, unit):
    """Units that agree with the draft for a random while, with how many of them a row keeps."""
    num_states = draft.shape[1] // unit + 1
    emitted = torch.from_numpy(rng.integers(0, 256, (len(draft), num_states * unit)))
    counts = np.ones(len(draft), int)
    for row in range(len(draft)):
        right = int(rng.integers(0, num_states))
        emitted[row, : right * unit] = draft[row, : right * unit]
        counts[row] = right + 1
    return emitted, counts * unit


def check_guess(uncached, rows, block, emitted, counts, rng):
    """Guesses of the further heads equal those of a full forward up to the last emitted symbol."""
    drafted = torch.from_numpy(rng.integers(0, 256, (len(counts), 2)))
    guess = block.guess(emitted, torch.from_numpy(counts))
    for n in range(3):
        found = guess.logits(drafted[:, :n])
        for row in rows.live:
            done = [*rows.committed[row], *emitted[row, : counts[row]].tolist()]
            prefix = [done[-1], *drafted[row, :n].tolist()]
            close(found[row], uncached.logits("next", done[:-1], 0, prefix))


def drive(law, kind, widths, steps=9, seed=0):
    """Drive a target with random drafts of ``widths`` units, against full forwards of the same bytes."""
    model = tiny_model(*kind)
    rng, uncached = np.random.default_rng(seed), Uncached(model)
    rows = Rows(rng.permutation(LENGTHS), seed)
    target = make_target(model, law, BOS)
    unit = target.unit
    block = target.start(rows.prompts, NUM_NEW, MAX_DRAFT)
    draft = torch.zeros(len(LENGTHS), 0, dtype=torch.int64)
    for step in range(steps):
        check_block(uncached, law, rows, block, draft, unit, rng)
        emitted, counts = draw_emission(rng, draft, unit)
        if law == "next":
            check_guess(uncached, rows, block, emitted, counts, rng)
        if step == 3:  # rows leave, change places, and one becomes two
            kept = [4, 1, 1, 0, 5]
            index = torch.tensor(kept)
            rows.select(kept)
            target.select(index)
            block, emitted, counts = block.select(index), emitted[index], counts[kept]
        if step == 5:
            rows.finished[2] = True
        counts = np.where(rows.finished, 0, counts)
        for row in rows.live:
            if rows.generated(row) + counts[row] > NUM_NEW:
                rows.finished[row], counts[row] = True, 0
        rows.commit(emitted, counts)
        if step == 6:  # the last unit of each row is taken back, and another one committed
            back = np.where(rows.finished, 0, unit)
            for row in rows.live:
                del rows.committed[row][-unit:]
            target.advance(emitted, torch.from_numpy(counts), draft[:, :0])
            target.rewind(torch.from_numpy(back))
            emitted, counts = torch.from_numpy(rng.integers(0, 256, (len(counts), unit))), back
            rows.commit(emitted, counts)
        width = int(rng.choice(widths)) * unit
        draft = torch.from_numpy(rng.integers(0, 256, (len(rows.committed), width)))
        block = target.advance(emitted, torch.from_numpy(counts), draft)
    assert max(map(rows.generated, range(len(rows.committed)))) >= steps * unit // 2


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("widths", [[0], [1], [0, 1, 2, 3, 4]], ids=str)
@torch.inference_mode()
def test_patch_target_equals_full_forwards(kind, widths):
    assert isinstance(make_target(tiny_model(*kind), "chain", BOS), PatchTarget)
    drive("chain" if kind[0] == "chained" else "product", kind, widths)


@pytest.mark.parametrize("widths", [[0], [2], [3], [7], [11], [0, 1, 2, 3, 4, 5, 6, 7, 12, 16]], ids=str)
@pytest.mark.parametrize("kind", [("chained", True), ("independent", False)], ids=str)
@torch.inference_mode()
def test_next_target_equals_full_forwards(kind, widths):
    assert isinstance(make_target(tiny_model(*kind), "next", BOS), NextTarget)
    drive("next", kind, widths, seed=7)


@pytest.mark.parametrize("law", ["chain", "next"])
@pytest.mark.parametrize("chunk", [1, 3, 5])
def test_prompts_are_read_in_chunks(monkeypatch, law, chunk):
    monkeypatch.setattr(targets_module, "PREFILL_CHUNK", chunk)
    drive(law, ("chained", False), [0, 1], steps=3)


@pytest.mark.parametrize("law", ["next", "chain"])
def test_a_slot_that_is_not_overwritten_is_caught(law, monkeypatch):
    """Negative control: the comparison above notices one stale slot."""
    plain, calls = CacheView.extend, []

    def forget(self, block, k_BGTE, v_BGTE):
        calls.append(block)
        if len(calls) not in (5, 6):
            return plain(self, block, k_BGTE, v_BGTE)
        kept = self.cache.keys[block].clone(), self.cache.values[block].clone()
        plain(self, block, k_BGTE, v_BGTE)
        self.cache.keys[block].copy_(kept[0])
        self.cache.values[block].copy_(kept[1])
        seen = (part[block][:, :, : self.num_slots] for part in (self.cache.keys, self.cache.values))
        return tuple(part if self.rows is None else part[self.rows] for part in seen)

    monkeypatch.setattr(CacheView, "extend", forget)
    with pytest.raises(AssertionError):
        drive(law, ("chained", False), [0])


@pytest.mark.parametrize("law", ["chain", "next"])
def test_memory_is_that_of_plain_decoding_and_the_draft(law):
    """Slots for the prompt, the new symbols and one draft; nothing for anything else."""
    model = tiny_model()
    target = make_target(model, law, BOS)
    target.start([random_bytes(20)], 20, 16)
    symbols = 4 + 20 + 20 + 16
    slots = symbols // 4 if law == "chain" else symbols + 4
    attention = model.config.attention
    per_slot = 2 * model.config.num_blocks * attention.num_kv_heads * attention.head_width * 4
    assert target.cache.num_bytes == slots * per_slot


@pytest.mark.parametrize("law", ["chain", "next"])
@torch.inference_mode()
def test_a_row_that_goes_on_after_its_end_leaves_the_others_alone(law):
    """As rows do whose forwards were begun ahead."""
    model, rng = tiny_model(), np.random.default_rng(2)
    rows, target = Rows([20, 3], 0), make_target(model, law, BOS)
    rows.finished[0] = True
    block, unit = target.start(rows.prompts, [4, 40], 0), target.unit
    none = torch.zeros(2, 0, dtype=torch.int64)
    for _ in range(40 // unit):
        check_block(Uncached(model), law, rows, block, none, unit, rng)
        emitted = torch.from_numpy(rng.integers(0, 256, (2, unit)))
        rows.commit(emitted, [unit, unit])
        block = target.advance(emitted, torch.tensor([unit, unit]), none)


@pytest.mark.parametrize("law", ["chain", "next"])
def test_what_does_not_fit_the_context_names_the_row(law):
    model = tiny_model(context=32)
    target = make_target(model, law, BOS)
    target.start([random_bytes(20)], 8, 0)
    with pytest.raises(DecodingError, match=r"^prompt 1: 4 bytes of BOS, 20 of prompt and 9 new ones make 33, .* 32 "):
        target.start([random_bytes(3), random_bytes(20)], 9, 0)


def test_only_next_and_next_patch_heads_guess():
    assert make_target(tiny_model(), "chain", BOS).max_guess == 0
    assert make_target(tiny_model("independent"), "product", BOS).max_guess == 0
    assert make_target(tiny_model(), "next", BOS).max_guess == 3

"""The cache of a target against full forwards: every law, any prompts, any drafts, any counts, finished rows."""

import numpy as np
import pytest
import torch
from support import BOS, KINDS, Uncached, random_bytes, tiny_model

from bytelm.errors import DecodingError
from bytelm.model.targets import NextTarget, PatchTarget, make_target

LENGTHS = [0, 1, 2, 3, 4, 17]
NUM_NEW = 24


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


class Rows:
    """What has been committed to each row, and where its prompt ends."""

    def __init__(self, lengths, seed):
        self.prompts = [random_bytes(n, seed + n) for n in lengths]
        self.committed = [[*BOS.tolist(), *p.tolist()] for p in self.prompts]
        self.starts = [len(row) for row in self.committed]
        self.finished = np.zeros(len(lengths), bool)

    def room(self):
        return [NUM_NEW - (len(c) - s) for c, s in zip(self.committed, self.starts, strict=True)]

    def commit(self, emitted, counts):
        for row, count in enumerate(counts):
            self.committed[row] += emitted[row, :count].tolist()


def check_logits(uncached, law, rows, block, emitted, n, which):
    """Logits after n emitted symbols equal a full forward of what is committed and those n."""
    found = block.logits(emitted[:, :n])
    for row in which:
        expected = uncached.logits(law, [*rows.committed[row], *emitted[row, :n].tolist()], rows.starts[row])
        close(found[row], expected)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@torch.inference_mode()
def test_patch_target_equals_full_forwards(kind):
    law, model = "chain" if kind[0] == "chained" else "product", tiny_model(*kind)
    rng, uncached = np.random.default_rng(0), Uncached(model)
    rows = Rows(rng.permutation(LENGTHS), 0)
    target = make_target(model, law, BOS)
    assert isinstance(target, PatchTarget)
    assert target.max_draft == 0
    block = target.start(rows.prompts, NUM_NEW)
    for step in range(NUM_NEW // 4):
        assert block.width == 4
        emitted = torch.from_numpy(rng.integers(0, 256, (len(LENGTHS), 4)))
        live = np.flatnonzero(~rows.finished)
        for n in range(4):
            assert block.covers(emitted[:, :n]).all()
            check_logits(uncached, law, rows, block, emitted, n, live)
        if step == NUM_NEW // 4 - 1:
            break
        rows.finished[rng.integers(0, len(LENGTHS))] |= step % 3 == 1
        counts = np.where(rows.finished, 0, 4)
        rows.commit(emitted, counts)
        block = target.advance(emitted, torch.from_numpy(counts), emitted[:, :0])


def draw_emission(rng, draft, width):
    """Symbols that agree with the draft for a random while, and how many of them a row keeps."""
    emitted = torch.from_numpy(rng.integers(0, 256, (len(draft), width)))
    counts = np.ones(len(draft), int)
    for row in range(len(draft)):
        right = int(rng.integers(0, draft.shape[1] + 1))
        emitted[row, :right] = draft[row, :right]
        if right < draft.shape[1]:
            emitted[row, right] = (draft[row, right] + 1 + rng.integers(0, 255)) % 256
        counts[row] = rng.integers(1, right + 2)
    return emitted, counts


def check_drafting(uncached, rows, block, emitted, counts, rng, which):
    """Guesses of the further heads equal those of a full forward up to the last emitted symbol."""
    drafted = torch.from_numpy(rng.integers(0, 256, (len(counts), 2)))
    for n in range(3):
        found = block.draft_logits(emitted, torch.from_numpy(counts), drafted[:, :n])
        for row in which:
            done = [*rows.committed[row], *emitted[row, : counts[row]].tolist()]
            prefix = [done[-1], *drafted[row, :n].tolist()]
            close(found[row], uncached.logits("next", done[:-1], 0, prefix))


@pytest.mark.parametrize(
    ("kind", "num_draft"),
    [*((kind, None) for kind in KINDS), *((("chained", True), n) for n in (0, 1, 2)), (("independent", False), 3)],
    ids=str,
)
@torch.inference_mode()
def test_next_target_equals_full_forwards(kind, num_draft):
    """Drafts of 0 to 3 symbols, or of another number at every step (None)."""
    model = tiny_model(*kind)
    rng, uncached = np.random.default_rng(7), Uncached(model)
    rows = Rows(rng.permutation(LENGTHS), 5)
    target = make_target(model, "next", BOS)
    assert isinstance(target, NextTarget)
    assert target.max_draft == 3
    block, draft = target.start(rows.prompts, NUM_NEW), torch.zeros(len(LENGTHS), 0, dtype=torch.int64)
    for step in range(7):
        assert block.width == draft.shape[1] + 1
        emitted, counts = draw_emission(rng, draft, block.width)
        live = np.flatnonzero(~rows.finished)
        for n in range(block.width):
            covered = block.covers(emitted[:, :n])
            assert covered.tolist() == (emitted[:, :n] == draft[:, :n]).all(1).tolist()
            check_logits(uncached, "next", rows, block, emitted, n, [r for r in live if covered[r]])
        check_drafting(uncached, rows, block, emitted, counts, rng, live)
        rows.finished[rng.integers(0, len(LENGTHS))] |= step % 4 == 3
        counts = np.where(rows.finished | (np.array(rows.room()) < counts), 0, counts)
        rows.finished |= counts == 0
        rows.commit(emitted, counts)
        size = int(rng.integers(0, 4)) if num_draft is None else num_draft
        draft = torch.from_numpy(rng.integers(0, 256, (len(LENGTHS), size)))
        block = target.advance(emitted, torch.from_numpy(counts), draft)
    assert max(len(c) - s for c, s in zip(rows.committed, rows.starts, strict=True)) >= 7


@pytest.mark.parametrize(
    "check",
    [
        lambda: test_next_target_equals_full_forwards.__wrapped__(("chained", False), 0),
        lambda: test_patch_target_equals_full_forwards.__wrapped__(("chained", False)),
    ],
    ids=["next", "chain"],
)
def test_a_cache_that_is_not_overwritten_is_caught(check, monkeypatch):
    """Negative control: the comparison above notices one stale slot."""
    from bytelm.nn.kv_cache import KVCache

    plain, calls = KVCache.write, []

    def forget(self, block, *args):
        calls.append(block)
        if len(calls) not in (5, 6):
            plain(self, block, *args)

    monkeypatch.setattr(KVCache, "write", forget)
    with pytest.raises(AssertionError, match="not close"):
        check()


@pytest.mark.parametrize("law", ["chain", "next"])
def test_what_does_not_fit_the_context_names_the_row(law):
    model = tiny_model(context=32)
    target = make_target(model, law, BOS)
    target.start([random_bytes(20)], 8)
    with pytest.raises(DecodingError, match=r"^prompt 1: 4 bytes of BOS, 20 of prompt and 9 new ones make 33, .* 32 "):
        target.start([random_bytes(3), random_bytes(20)], 9)


def test_product_and_chain_have_no_draft_to_verify():
    block = make_target(tiny_model(), "chain", BOS).start([random_bytes(3)], 4)
    with pytest.raises(AssertionError, match="verify no draft"):
        block.draft_logits(torch.zeros(1, 1).long(), torch.ones(1).long(), torch.zeros(1, 0).long())

"""The books are right, rows cost and depend on nothing but their own, limits are exact, bad requests are named.

That the output is the law's, whatever is drafted, is the kit's to show: see ``tests/testing/test_our_decoder.py``.
"""

import types

import numpy as np
import pytest
import torch

from bytelm.decoding import HeadsDrafter, LookupDrafter, Sampling, decode, emission, loop
from bytelm.decoding.drafters import heads
from bytelm.errors import DecodingError
from bytelm.testing import ToyLaw, ToyTarget
from bytelm.testing.reference import decode_reference

SAMPLED = Sampling(do_sample=True)
TRUNCATED = Sampling(do_sample=True, temperature=0.8, top_k=5, top_p=0.9)
PROMPTS = [np.array(p, dtype=np.uint8) for p in ([1, 2, 3], [4], [], [6, 5, 4, 3, 2, 1], [2, 2])]


class Watched(ToyTarget):
    """Notes, for every forward, which rows of the output it ran for and what it was told of them."""

    def start(self, prompts, num_new, max_draft):
        self.started, self.rows, self.seen = len(prompts), np.arange(len(prompts)), []
        return super().start(prompts, num_new, max_draft)

    def select(self, rows):
        self.rows = self.rows[rows.numpy()] if self.forwards > 1 else np.arange(len(rows))
        super().select(rows)

    def advance(self, emitted, counts, draft):
        self.seen.append((self.rows.copy(), emitted.numpy(), counts.numpy(), draft.numpy()))
        return super().advance(emitted, counts, draft)


class Noting:
    """A drafter that notes what it proposed."""

    def __init__(self, inner):
        self.inner, self.drafts = inner, []
        self.name, self.max_draft = inner.name, inner.max_draft
        self.start, self.select, self.observe = inner.start, inner.select, inner.observe

    def propose(self, round_):
        self.drafts.append(self.inner.propose(round_))
        return self.drafts[-1]


def stops_at(lengths):
    """A stop that ends each row at a length of its own."""
    return [lambda row, generated: len(generated) == lengths[row]]


def recount(generation, target, drafts):
    """The books, counted once more from the trace and from what each forward was run on."""
    traces = generation.trace
    kept = [np.bincount(t.forward).tolist() for t in traces]
    begins = [np.cumsum([0, *k]).tolist() for k in kept]
    books = {"judged": {}, "accepted": {}, "by": {}, "drafted": 0, "states": 0}
    sources = [[["law"] * n for n in k] for k in kept]
    for forward, ((rows, _, _, symbols), draft) in enumerate(zip(target.seen, drafts, strict=True), 1):
        proposed = [symbols.shape[1]] * len(rows) if draft.proposed is None else draft.proposed.tolist()
        for row, drafted, real in zip(rows.tolist(), symbols.tolist(), proposed, strict=True):
            if forward >= len(kept[row]):
                continue
            books["states"] += 1 + symbols.shape[1] // target.unit
            books["drafted"] += real
            told = generation.symbols[row][begins[row][forward] :][: kept[row][forward]].tolist()
            for n, (one, other) in enumerate(zip(drafted[:real], told, strict=False)):
                judged, accepted = books["by"].get(draft.source, (0, 0))
                books["by"][draft.source] = judged + 1, accepted + (one == other)
                books["judged"][n] = books["judged"].get(n, 0) + 1
                books["accepted"][n] = books["accepted"].get(n, 0) + (one == other)
                if one != other:
                    break
                sources[row][forward][n] = draft.source
    return books, kept, sources


def make_drafter(name, unit):
    return {"heads": HeadsDrafter(3 if unit == 1 else 8), "lookup": LookupDrafter(8, min_match=1)}.get(name)


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("draft_with", ["none", "heads", "lookup"])
@pytest.mark.parametrize("stops", [(), stops_at([5, 11, 99, 99, 26])], ids=["length", "stops"])
def test_books_are_what_the_forwards_say(draft_with, unit, sampling, stops):
    law = ToyLaw.random(7, seed=4)
    target, inner = Watched(law, unit, law.near(5, 1.5)), make_drafter(draft_with, unit)
    drafter, calls = None if inner is None else Noting(inner), []
    generation = decode(
        target,
        PROMPTS,
        sampling=sampling,
        max_new=40,
        drafter=drafter,
        stops=stops,
        streamer=lambda row, new: calls.append((row, new.tolist())),
    )
    stats = generation.stats
    nothing = [types.SimpleNamespace(proposed=None, source="none")] * len(target.seen)
    books, kept, sources = recount(generation, target, nothing if drafter is None else drafter.drafts)

    assert stats.forwards == target.forwards == len(target.seen) + 1 == max(map(len, kept))
    assert stats.row_forwards == tuple(map(len, kept))
    assert stats.symbols == sum(map(len, generation.symbols))
    assert generation.finish == (["stop", "stop", "length", "length", "stop"] if stops else ["length"] * 5)
    assert [len(s) for s in generation.symbols] == ([5, 11, 40, 40, 26] if stops else [40] * 5)
    assert dict(enumerate(stats.judged_at)) == books["judged"] | dict.fromkeys(
        range(len(books["judged"]), len(stats.judged_at)), 0
    )
    assert {n: a for n, a in enumerate(stats.accepted_at) if n in books["judged"]} == books["accepted"]
    assert (stats.drafted, stats.states) == (books["drafted"], books["states"])
    assert {name: told for name, told in stats.by_drafter.items() if told[0]} == books["by"]
    assert stats.accepted == sum(books["accepted"].values())
    for row, trace in enumerate(generation.trace):
        assert all(n > 0 for n in kept[row]), "a forward that gave nothing"
        assert trace.offset.tolist() == [n for count in kept[row] for n in range(count)]
        assert trace.source.tolist() == [name for part in sources[row] for name in part]
        assert [new for r, new in calls if r == row] == [
            part.tolist() for part in np.split(generation.symbols[row], np.cumsum(kept[row])[:-1])
        ]
    assert stats.symbols_per_forward == stats.symbols / len(calls)
    if draft_with != "none":
        assert 0 < stats.accepted < sum(stats.judged_at) < stats.drafted, "drafts must hold and fail"
        assert max(int(t.offset.max()) for t in generation.trace) > unit - 1
    assert stats.seconds == pytest.approx(sum(vars(stats.parts).values()))
    assert stats.seconds > 0


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_rows_that_finished_cost_nothing_and_commit_nothing(monkeypatch, fixed_shapes, unit):
    for module in (emission, heads):  # shapes are fixed for compiled steps, which is not what this is about
        monkeypatch.setattr(module, "compiled", lambda function: function)
    law, lengths = ToyLaw.random(17, seed=4), [5, 11, 60, 21, 26]
    target = Watched(law, unit, law.near(5, 0.7), fixed_shapes=fixed_shapes)
    generation = decode(
        target, PROMPTS, max_new=60, drafter=HeadsDrafter(4), stops=stops_at(lengths), sampling=SAMPLED, seed=1
    )
    widths = []
    for forward, (rows, emitted, counts, _) in enumerate(target.seen, 1):
        live = [row for row in range(5) if forward < generation.stats.row_forwards[row]]
        if fixed_shapes:
            assert set(live) <= set(rows.tolist())
            assert 2 * len(live) > len(rows), "half of the batch has finished"
        else:
            assert rows.tolist() == live
        widths.append(len(rows))
        for place, row in enumerate(rows.tolist()):
            trace = generation.trace[row]
            before = trace.forward == forward - 1
            assert counts[place] == (before.sum() if row in live else 0)
            if row in live:
                assert emitted[place, : counts[place]].tolist() == generation.symbols[row][before].tolist()
    assert len(set(widths)) > 2, "rows must finish at different times"


def test_wrong_drafts_cost_no_forward():
    law = ToyLaw.random(31, seed=2)
    adversary = ToyLaw(-law.table)
    stats = decode(ToyTarget(law, 1, adversary), PROMPTS, max_new=20, drafter=HeadsDrafter(3)).stats
    assert stats.judged_at == (19 * len(PROMPTS), 0, 0), "after a draft that failed, the next ones say nothing"
    assert stats.accepted == 0
    assert stats.forwards == 20


@pytest.mark.parametrize("num_draft", [1, 3])
@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED, TRUNCATED], ids=["greedy", "sampled", "truncated"])
def test_drafts_from_the_law_itself_all_hold(sampling, num_draft):
    law = ToyLaw.random(31, seed=2)
    drafter, max_new = HeadsDrafter(num_draft), 1 + 6 * (num_draft + 1)
    stats = decode(ToyTarget(law, 1, law), PROMPTS, sampling=sampling, max_new=max_new, drafter=drafter, seed=3).stats
    assert stats.accepted_at == stats.judged_at == (6 * len(PROMPTS),) * num_draft
    assert stats.drafted == stats.accepted
    assert stats.forwards == 7


@pytest.mark.parametrize("draft", [False, True])
@pytest.mark.parametrize("unit", [1, 4])
def test_a_row_does_not_depend_on_its_batch(unit, draft):
    law = ToyLaw.random(64, seed=5)

    def run(rows, seeds, **options):
        target = ToyTarget(law, unit, law.near(5, 0.7))
        prompts, drafter = [PROMPTS[r] for r in rows], HeadsDrafter(8) if draft else None
        found = decode(target, prompts, sampling=SAMPLED, max_new=30, seed=seeds, drafter=drafter, **options)
        return [(s.tolist(), n) for s, n in zip(found.symbols, found.stats.row_forwards, strict=True)]

    together = run([0, 1, 2, 3, 4], [11, 12, 13, 2**40, 2**64 - 1])
    assert run([0], [11]) == together[:1]
    assert run([4, 2], [2**64 - 1, 13]) == [together[4], together[2]]
    assert run([0, 0], [5, 5])[0] == run([0, 0], [5, 5])[1]
    twins = run([0, 0], 5)
    assert twins[0] != twins[1], "an integer seed gives every row noise of its own"
    assert run([0], 5, num_sequences=2) == run([0], [5], num_sequences=2) == twins
    assert run([1, 0], [9, 5], num_sequences=2)[2:] == twins


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("sampling", [SAMPLED, TRUNCATED], ids=["sampled", "truncated"])
@pytest.mark.parametrize("seed", [7, [7, 2**63, 7, 1, 0]], ids=["one", "list"])
def test_sequences_of_a_prompt_share_its_prefill(seed, sampling, unit):
    law = ToyLaw.random(9, seed=5)
    target = Watched(law, unit, law.near(5, 0.7))
    run = decode(target, PROMPTS, sampling=sampling, max_new=13, seed=seed, num_sequences=3, drafter=HeadsDrafter(4))
    assert target.started == len(PROMPTS), "the prompts were read more than once"
    assert len(run.symbols) == 15
    for row, symbols in enumerate(run.symbols):
        prompt, sequence = divmod(row, 3)
        own = (seed, row) if isinstance(seed, int) else (seed[prompt], sequence)
        expected = decode_reference(law, PROMPTS[prompt], sampling, 13, seed=own)
        assert symbols.tolist() == expected.symbols
        np.testing.assert_allclose(run.nats[row], expected.nats, rtol=1e-9)


@pytest.mark.parametrize("max_new", range(1, 14))
@pytest.mark.parametrize(("unit", "num_draft"), [(1, 0), (1, 3), (4, 0), (4, 8)])
def test_length_limit_is_exact(max_new, unit, num_draft):
    law = ToyLaw.random(17, seed=3)
    target = ToyTarget(law, unit, law.near(5, 0.7))
    generation = decode(target, PROMPTS, max_new=max_new, drafter=HeadsDrafter(num_draft))
    for row, prompt in enumerate(PROMPTS):
        expected = decode_reference(law, prompt, Sampling(), max_new)
        assert generation.symbols[row].tolist() == expected.symbols
        assert generation.finish[row] == "length"
        np.testing.assert_allclose(generation.nats[row], expected.nats, rtol=1e-9)
    if not num_draft:
        assert target.forwards == -(-max_new // unit), "a forward after the last symbol"


def test_no_forward_begins_after_max_seconds(monkeypatch):
    """A clock that each forward moves by a second: four of them pass 3.5 s."""
    now = [0.0]
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    class Slow(ToyTarget):
        def advance(self, *args):
            now[0] += 1.0
            return super().advance(*args)

    law, streamed = ToyLaw.random(9, seed=1), []
    options = {"stops": stops_at([2, 5, 99, 99, 99]), "streamer": lambda row, new: streamed.extend(new.tolist())}
    run = decode(Slow(law), PROMPTS, max_new=50, max_seconds=3.5, **options)
    assert run.finish == ["stop", "stop", "time", "time", "time"]
    assert [len(s) for s in run.symbols] == [2, 5, 5, 5, 5]
    assert len(streamed) == run.stats.symbols == 22
    assert run.stats.forwards == 5
    assert run.stats.parts.verify == run.stats.seconds == 4.0
    unlimited = decode(ToyTarget(law), PROMPTS, max_new=5)
    assert [s.tolist() for s in run.symbols[2:]] == [s.tolist() for s in unlimited.symbols[2:]]


def test_symbol_dtype_follows_the_vocabulary():
    for vocab, dtype in ((256, np.uint8), (257, np.int64)):
        assert decode(ToyTarget(ToyLaw.random(vocab, seed=1)), PROMPTS, max_new=2).symbols[0].dtype == dtype


def test_global_random_state_is_left_alone():
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    law = ToyLaw.random(9, seed=1)
    decode(ToyTarget(law, 1, law), PROMPTS, max_new=5, sampling=SAMPLED, drafter=HeadsDrafter(3), verify="rejection")
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "prompts: found none"),
        ({"max_new": 0}, "max_new: found 0, expected at least 1"),
        ({"num_sequences": 0}, "num_sequences: found 0, expected at least 1"),
        ({"max_seconds": 0.0}, "max_seconds: found 0.0, expected a number above 0"),
        ({"max_seconds": float("nan")}, "max_seconds: found nan"),
        ({"verify": "hope"}, "verify: found 'hope', expected one of exact, rejection, typical"),
        ({"seed": -1}, "seed: found -1"),
        ({"seed": 2**64}, "seed: found 18446744073709551616"),
        ({"seed": [1, 2]}, "seed: found a list of 2, expected one seed for each of 5 prompts"),
    ],
)
def test_bad_requests_are_refused(change, message):
    request = {"prompts": PROMPTS, "max_new": 3, "seed": 0} | change
    prompts = request.pop("prompts")
    with pytest.raises(DecodingError, match=message):
        decode(ToyTarget(ToyLaw.random(9, seed=1)), prompts, **request)

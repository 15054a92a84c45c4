"""The output is the law's, whatever the drafter, the draft length and the batch; and the books are right."""

import itertools

import numpy as np
import pytest
import torch
from table_target import TableLaw, TableTarget, decode_reference

from bytelm.decoding import HeadsDrafter, NoDrafter, Sampling, decode
from bytelm.errors import DecodingError

SAMPLINGS = {
    "greedy": Sampling(),
    "cold": Sampling(do_sample=True, temperature=0.0),
    "plain": Sampling(do_sample=True),
    "warm": Sampling(do_sample=True, temperature=1.3),
    "truncated": Sampling(do_sample=True, temperature=0.8, top_k=5, top_p=0.9),
}
PROMPTS = [np.array(p, dtype=np.uint8) for p in ([1, 2, 3], [4], [], [6, 5, 4, 3, 2, 1], [2, 2])]


class Adversarial:
    """Drafts what the law thinks least likely."""

    def __init__(self, law):
        self.law = law

    def __call__(self, context):
        return -5 * self.law(context)


class Fair(Adversarial):
    """The law with noise of its own: some drafts hold, some do not."""

    def __call__(self, context):
        return self.law(context) + 0.7 * self.law(context).roll(1, -1)


QUALITIES = {
    "equal": lambda law: law,
    "fair": Fair,
    "unrelated": lambda law: TableLaw(law.vocab, seed=99),
    "adversarial": Adversarial,
}


def reference(law, sampling, num_rows, max_new, seed=7):
    return [decode_reference(law, PROMPTS[r], sampling, max_new, seed=seed, row=r) for r in range(num_rows)]


def check(generation, expected):
    for row, (symbols, nats, finish) in enumerate(expected):
        assert generation.symbols[row].tolist() == symbols
        assert generation.finish[row] == finish
        np.testing.assert_allclose(generation.nats[row], nats, rtol=1e-9)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("num_rows", [1, 2, 5])
@pytest.mark.parametrize("vocab", [7, 256])
def test_every_drafter_gives_what_one_symbol_at_a_time_gives(vocab, num_rows, sampling):
    law = TableLaw(vocab, seed=1)
    expected = reference(law, sampling, num_rows, 23)
    plain = decode(TableTarget(law), PROMPTS[:num_rows], sampling=sampling, max_new=23, seed=7)
    check(plain, expected)
    patch = decode(TableTarget(law, patch=True), PROMPTS[:num_rows], sampling=sampling, max_new=23, seed=7)
    check(patch, expected)
    assert patch.stats.forwards == 6
    for quality, num_draft in [("equal", 0), *itertools.product(QUALITIES, (1, 3))]:
        target = TableTarget(law, max_draft=num_draft, draft_law=QUALITIES[quality](law))
        drafter = HeadsDrafter(num_draft)
        drafted = decode(target, PROMPTS[:num_rows], sampling=sampling, max_new=23, seed=7, drafter=drafter)
        check(drafted, expected)
        assert drafted.stats.forwards == target.forwards <= plain.stats.forwards


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("num_draft", [1, 3])
def test_drafts_from_the_law_itself_all_hold(sampling, num_draft):
    law = TableLaw(31, seed=2)
    target = TableTarget(law, max_draft=num_draft, draft_law=law)
    max_new = 1 + 6 * (num_draft + 1)
    stats = decode(target, PROMPTS, sampling=sampling, max_new=max_new, drafter=HeadsDrafter(num_draft), seed=3).stats
    assert stats.accepted_at == stats.judged_at == (6 * len(PROMPTS),) * num_draft
    assert stats.drafted == stats.accepted
    assert stats.forwards == 7


def test_adversarial_drafts_never_hold_and_cost_no_forward():
    law = TableLaw(31, seed=2)
    target = TableTarget(law, max_draft=3, draft_law=Adversarial(law))
    stats = decode(target, PROMPTS, max_new=20, drafter=HeadsDrafter(3)).stats
    assert stats.accepted == 0
    assert stats.judged_at == (19 * len(PROMPTS), 0, 0)
    assert stats.forwards == 20


def test_drafts_after_one_that_failed_are_not_counted():
    """A patch whose law needs no draft goes on after a draft that failed; the drafts after it say nothing."""
    law = TableLaw(7, seed=2)
    target = TableTarget(law, max_draft=3, draft_law=Fair(law), patch=True)
    stats = decode(target, PROMPTS, max_new=80, drafter=HeadsDrafter(3)).stats
    assert stats.judged_at[1:] == stats.accepted_at[:2]
    assert stats.judged_at[0] == 19 * len(PROMPTS) > stats.judged_at[1] > stats.judged_at[2] > 0


@pytest.mark.parametrize("kind", ["heads", "patch"])
def test_a_row_that_finished_commits_nothing(kind):
    law = TableLaw(17, seed=4)
    target = TableTarget(law, max_draft=3 * (kind == "heads"), draft_law=law, patch=kind == "patch")
    stops = [lambda row, generated: len(generated) == 5 * row + 6]
    generation = decode(target, PROMPTS, max_new=60, drafter=HeadsDrafter(target.max_draft), stops=stops)
    committed = torch.stack([counts for _, counts in target.committed]).sum(0).tolist()
    for row, trace in enumerate(generation.trace):
        assert committed[row] == (trace.forward < trace.forward[-1]).sum()


@pytest.mark.parametrize("draft", [False, True])
def test_a_row_does_not_depend_on_its_batch(draft):
    law = TableLaw(64, seed=5)
    sampling = Sampling(do_sample=True)

    def run(rows, seeds):
        target = TableTarget(law, max_draft=3, draft_law=Fair(law))
        drafter = HeadsDrafter(3) if draft else NoDrafter()
        prompts = [PROMPTS[r] for r in rows]
        found = decode(target, prompts, sampling=sampling, max_new=30, seed=seeds, drafter=drafter)
        return [(s.tolist(), count) for s, count in zip(found.symbols, found.stats.row_forwards, strict=True)]

    together = run([0, 1, 2, 3, 4], [11, 12, 13, 2**40, 2**64 - 1])
    assert run([0], [11]) == together[:1]
    assert run([4, 2], [2**64 - 1, 13]) == [together[4], together[2]]
    assert run([0, 0], [5, 5])[0] == run([0, 0], [5, 5])[1]
    twins = run([0, 0], 5)
    assert twins[0] != twins[1], "an integer seed gives every row noise of its own"


@pytest.mark.parametrize("max_new", range(1, 21))
@pytest.mark.parametrize("kind", ["plain", "heads", "patch"])
def test_length_limit_is_exact(max_new, kind):
    law = TableLaw(17, seed=3)
    target = TableTarget(law, max_draft=3 * (kind == "heads"), draft_law=Fair(law), patch=kind == "patch")
    drafter = HeadsDrafter(target.max_draft)
    generation = decode(target, PROMPTS, max_new=max_new, drafter=drafter)
    check(generation, reference(law, Sampling(), 5, max_new))
    if kind == "patch":
        assert target.forwards == -(-max_new // 4), "no forward after the last symbol"
        assert target.asked == max_new, "no logits after the last symbol"


@pytest.mark.parametrize("num_draft", [0, 1, 3])
def test_books_add_up(num_draft):
    law = TableLaw(17, seed=4)
    target = TableTarget(law, max_draft=num_draft, draft_law=Fair(law))
    streamed = [[] for _ in PROMPTS]
    calls = []

    def streamer(row, new):
        calls.append((row, len(new)))
        streamed[row].extend(new.tolist())

    def stop(row, generated):
        return row == 1 and len(generated) == 7

    generation = decode(
        target,
        PROMPTS,
        sampling=Sampling(do_sample=True),
        max_new=40,
        drafter=HeadsDrafter(num_draft),
        streamer=streamer,
        stops=[stop],
    )
    stats = generation.stats
    assert streamed == [s.tolist() for s in generation.symbols]
    assert all(count >= 1 for _, count in calls)
    assert stats.symbols == sum(map(len, generation.symbols)) == 4 * 40 + 7
    assert generation.finish == ["length", "stop", "length", "length", "length"]
    assert stats.forwards == target.forwards
    assert stats.row_forwards == tuple(sum(row == r for row, _ in calls) for r in range(5))
    assert max(stats.row_forwards) == stats.forwards
    assert stats.symbols_per_forward == stats.symbols / len(calls)
    assert stats.drafted == num_draft * (sum(stats.row_forwards) - 5)
    assert len(stats.judged_at) == len(stats.accepted_at) == num_draft
    assert stats.accepted == sum(stats.accepted_at) <= sum(stats.judged_at) <= stats.drafted
    assert stats.symbols == sum(stats.row_forwards) + sum(count - 1 for _, count in calls)
    if num_draft:
        # Each symbol after the first of its block is there because the draft before it held.
        assert 0 <= stats.accepted - (stats.symbols - sum(stats.row_forwards)) <= 5
        assert all(a <= j for a, j in zip(stats.accepted_at, stats.judged_at, strict=True))
    assert stats.seconds > 0


def test_trace_says_which_forward_emitted_each_symbol():
    law = TableLaw(17, seed=4)
    target = TableTarget(law, max_draft=3, draft_law=Fair(law))
    generation = decode(target, PROMPTS, max_new=40, drafter=HeadsDrafter(3))
    for row, trace in enumerate(generation.trace):
        assert len(trace.forward) == len(trace.offset) == 40
        seen = []
        for forward, (emitted, counts) in enumerate(target.committed):
            count = int(counts[row])
            np.testing.assert_array_equal(trace.offset[trace.forward == forward][:count], range(count))
            seen += emitted[row, :count].tolist()
        assert seen == generation.symbols[row][: len(seen)].tolist()
        assert trace.forward[0] == 0
        assert trace.forward.max() == generation.stats.row_forwards[row] - 1
    assert {int(o) for trace in generation.trace for o in trace.offset} == {0, 1, 2, 3}


def test_symbol_dtype_follows_the_vocabulary():
    for vocab, dtype in ((256, np.uint8), (257, np.int64)):
        assert decode(TableTarget(TableLaw(vocab, seed=1)), PROMPTS, max_new=2).symbols[0].dtype == dtype


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    decode(TableTarget(TableLaw(9, seed=1)), PROMPTS, max_new=5, sampling=Sampling(do_sample=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "prompts: found none"),
        ({"max_new": 0}, "max_new: found 0"),
        ({"seed": -1}, "seed: found -1"),
        ({"seed": 2**64}, "seed: found 18446744073709551616"),
        ({"seed": [1, 2]}, "seed: found a list of 2, expected one seed for each of 5 rows"),
    ],
)
def test_bad_requests_are_refused(change, message):
    request = {"prompts": PROMPTS, "max_new": 3, "seed": 0} | change
    prompts = request.pop("prompts")
    with pytest.raises(DecodingError, match=message):
        decode(TableTarget(TableLaw(9, seed=1)), prompts, **request)

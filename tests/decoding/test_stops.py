"""Stops act at the symbol where they fall, wherever that is in a block, and only on whole code words."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.decoding import HeadsDrafter, Sampling, SequenceStop, decode
from bytelm.errors import DecodingError
from bytelm.testing import ToyLaw, ToyTarget
from bytelm.testing.reference import decode_reference

PROMPT = np.array([1, 2], dtype=np.uint8)
UNITS = {"plain": 1, "heads": 1, "fair": 1, "patch": 4, "drafted patch": 4}
KINDS = list(UNITS)


class Script:
    """A law that says given symbols in order, then goes round: the next symbol is a function of the last two."""

    vocab = 256

    def __init__(self, symbols):
        self.table = torch.zeros(256, 256, dtype=torch.int64)
        told = {}
        for a, b, c in zip([1, 2, *symbols], [2, *symbols], symbols, strict=False):
            assert told.setdefault((a, b), c) == c, "the script contradicts itself"
            self.table[a, b] = c

    def batch(self, context):
        follows = self.table[context[..., -2], context[..., -1]]
        return 9.0 * torch.nn.functional.one_hot(follows, 256).double()

    def near(self, seed, distance):
        """A law that is wrong after every third symbol."""
        other = Script([])
        other.table = torch.where(torch.arange(256) % 3 == 0, self.table + 1, self.table)
        return other


def run(law, kind, prompts=(PROMPT,), **options):
    """Decode with a drafter of one kind: all drafts hold ("heads"), some do ("fair", "drafted patch"), or none."""
    draft_law = law if kind == "heads" else law.near(5, 0.7)
    num_draft = {"heads": 3, "fair": 3, "drafted patch": 8}.get(kind, 0)
    target = ToyTarget(law, UNITS[kind], draft_law)
    return decode(target, list(prompts), drafter=HeadsDrafter(num_draft), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("offset", range(9))
def test_stop_at_every_offset_of_a_block(kind, length, offset):
    symbols = [100 + i for i in range(offset)] + [200 + i for i in range(length)] + [50 + i for i in range(12)]
    law = Script(symbols)
    generation = run(law, kind, max_new=18, stops=[SequenceStop(bytes(range(200, 200 + length)))])
    assert generation.symbols[0].tolist() == symbols[: offset + length]
    assert generation.finish == ["stop"]
    assert len(generation.nats[0]) == len(generation.trace[0].forward) == offset + length
    if kind == "patch":
        assert generation.stats.forwards == -(-(offset + length) // 4), "no forward after the stop"


@pytest.mark.parametrize("kind", KINDS)
def test_misaligned_match_is_refused(kind):
    # Words of two symbols: the stop (7, 8) first appears across two words, then as a word.
    symbols = [30, 7, 8, 31, 32, 33, 7, 8]
    law = Script(symbols)
    asked = []

    def aligned(generated, start):
        asked.append((generated.tolist(), start))
        return start % 2 == 0

    generation = run(law, kind, max_new=9, stops=[SequenceStop(b"\x07\x08", aligned)])
    assert generation.symbols[0].tolist() == symbols[:8]
    assert asked == [(symbols[:3], 1), (symbols[:8], 6)]
    anywhere = run(law, kind, max_new=9, stops=[SequenceStop(b"\x07\x08")])
    assert anywhere.symbols[0].tolist() == symbols[:3]


def test_prompt_does_not_count():
    law = Script([60, 61, 62])
    prompt = np.array([9, 9, 1, 2], dtype=np.uint8)
    generation = run(law, "plain", [prompt], max_new=3, stops=[SequenceStop([2, 60])])
    assert generation.finish == ["length"]


def test_stop_on_the_last_allowed_symbol_is_a_stop():
    generation = run(Script([60, 61, 62]), "heads", max_new=3, stops=[SequenceStop([62])])
    assert generation.finish == ["stop"]
    assert generation.symbols[0].tolist() == [60, 61, 62]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), min_size=1, max_size=4))
def test_first_match_is_the_one_of_bytes_find(generated, sequence):
    stop = SequenceStop(bytes(sequence))
    asked = (stop(0, np.array(generated[:n], dtype=np.uint8)) for n in range(1, len(generated) + 1))
    first = next((n for n, hit in enumerate(asked, 1) if hit), None)
    start = bytes(generated).find(bytes(sequence))
    assert first == (None if start < 0 else start + len(sequence))


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(do_sample=True)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_stop_at_different_times_do_not_change_others(kind, sampling):
    law = ToyLaw.random(17, seed=8)
    prompts = [np.array(p, dtype=np.uint8) for p in ([1], [2, 3], [4, 5, 6], [7], [8, 9])]
    stops = [SequenceStop([3]), SequenceStop([11, 4]), lambda row, generated: row == 2 and len(generated) == 6]
    found = run(law, kind, prompts, sampling=sampling, max_new=60, stops=stops, seed=1)
    lengths = set()
    for row, prompt in enumerate(prompts):

        def ends(symbols, row=row):
            return symbols[-1] == 3 or symbols[-2:] == [11, 4] or (row == 2 and len(symbols) == 6)

        symbols, nats, finish = decode_reference(law, prompt, sampling, 60, seed=(1, row), stop=ends)
        assert found.symbols[row].tolist() == symbols
        assert found.finish[row] == finish
        np.testing.assert_allclose(found.nats[row], nats, rtol=1e-9)
        lengths.add(len(symbols))
    assert len(lengths) > 2, "the rows must end at different times"


def test_stops_are_asked_once_per_symbol_in_order():
    asked = []

    def watch(row, generated):
        asked.append((row, len(generated)))
        return False

    run(ToyLaw.random(17, seed=8), "fair", [PROMPT, PROMPT[:1]], max_new=15, stops=[watch])
    for row in (0, 1):
        assert [n for r, n in asked if r == row] == list(range(1, 16))


def test_streamer_sees_nothing_after_the_stop():
    streamed = []
    law = Script([60, 61, 62, 63, 64, 65, 66, 67])
    generation = run(
        law, "patch", max_new=8, stops=[SequenceStop([65])], streamer=lambda r, s: streamed.append(s.tolist())
    )
    assert streamed == [[60, 61, 62, 63], [64, 65]]
    assert list(itertools.chain(*streamed)) == generation.symbols[0].tolist()


def test_empty_stop_is_refused():
    with pytest.raises(DecodingError, match="stop: found an empty sequence"):
        SequenceStop(b"")

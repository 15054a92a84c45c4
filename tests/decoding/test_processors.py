"""Processors against transformers', and states of many positions at once against a fresh start at each."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LogitsProcessorList
from transformers.generation import logits_process as theirs

from bytelm.decoding import (
    CountPenalty,
    LogitBias,
    NoRepeatNgram,
    Processor,
    Processors,
    RepetitionPenalty,
    SequenceStop,
    SuppressUntil,
    UserProcessor,
    map_state,
)
from bytelm.errors import DecodingError

VOCAB = 5
CPU = torch.device("cpu")
# Dyadic, so that sums do not depend on their order.
BIASES = {3: -1.5, (0, 1): 2.0, (2,): -math.inf, (1, 1, 4): 0.25, (3, 1): 4.0, (0, 0, 0, 1): -0.5, (2, 1): 8.0}
prompts_of_rows = st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=12), min_size=1, max_size=3)
drafts = st.lists(st.integers(0, VOCAB - 1), min_size=0, max_size=8)


def user_fn(input_ids, scores):
    assert input_ids.dtype == torch.int64
    return scores + torch.bincount(input_ids[0], minlength=VOCAB) * (1 + input_ids.shape[1])


OURS = {
    "bias": lambda: LogitBias(BIASES),
    "penalty": lambda: RepetitionPenalty(1.3),
    "unigram": lambda: NoRepeatNgram(1),
    "bigram": lambda: NoRepeatNgram(2),
    "four-gram": lambda: NoRepeatNgram(4),
    "user": lambda: UserProcessor(user_fn),
}
THEIRS = {
    "bias": lambda: theirs.SequenceBiasLogitsProcessor(
        {((key,) if isinstance(key, int) else key): bias for key, bias in BIASES.items()}
    ),
    "penalty": lambda: theirs.RepetitionPenaltyLogitsProcessor(1.3),
    "unigram": lambda: theirs.NoRepeatNGramLogitsProcessor(1),
    "bigram": lambda: theirs.NoRepeatNGramLogitsProcessor(2),
    "four-gram": lambda: theirs.NoRepeatNGramLogitsProcessor(4),
    "user": lambda: user_fn,
}


def arrays(prompts):
    return [np.array(prompt, dtype=np.uint8) for prompt in prompts]


def stack(states):
    """States (B, …) at successive positions as one state (B, R, …)."""
    if isinstance(states[0], torch.Tensor):
        return torch.stack(states, dim=1)
    return tuple(stack(parts) for parts in zip(*states, strict=True))


def tensors(state):
    return [state] if isinstance(state, torch.Tensor) else [tensor for part in state for tensor in tensors(part)]


def positions(processor, prompts, drafted):
    """The state (B, R, …) before each of R = N + 1 positions, after the first of the N drafted symbols of each row."""
    states = [processor.start(arrays(prompts), drafted.shape[1] + 3, VOCAB, CPU)]
    for symbols in drafted.unbind(1):
        kept = [tensor.clone() for tensor in tensors(states[-1])]
        states.append(processor.advance(states[-1], symbols))
        assert all(map(torch.equal, kept, tensors(states[-2]))), "advance changed its argument"
    return stack(states)


def draw_drafts(data, num_rows):
    width = data.draw(st.integers(0, 8))
    rows = data.draw(
        st.lists(
            st.lists(st.integers(0, VOCAB - 1), min_size=width, max_size=width), min_size=num_rows, max_size=num_rows
        )
    )
    return torch.tensor(rows, dtype=torch.int64).view(num_rows, width)


@pytest.mark.parametrize("name", OURS)
@given(prompts_of_rows, st.data())
def test_every_position_has_what_transformers_and_a_fresh_start_give(name, prompts, data):
    drafted = draw_drafts(data, len(prompts))
    processor = OURS[name]()
    state = positions(processor, prompts, drafted)
    logits = torch.randn(len(prompts), drafted.shape[1] + 1, VOCAB)
    logits[torch.rand_like(logits) < 0.1] = -math.inf
    before = logits.clone()
    found = processor.apply(state, logits)
    assert torch.equal(logits, before)
    for row, prompt in enumerate(prompts):
        for place in range(logits.shape[1]):
            prefix = [*prompt, *drafted[row, :place].tolist()]
            expected = THEIRS[name]()(torch.tensor([prefix], dtype=torch.int64).view(1, -1), logits[row, place][None])
            torch.testing.assert_close(found[row, place], expected[0], rtol=0, atol=0)
            fresh = OURS[name]()
            alone = fresh.apply(fresh.start(arrays([prefix]), 1, VOCAB, CPU), logits[row, place][None])
            assert torch.equal(alone[0], found[row, place])


@given(prompts_of_rows, st.data())
def test_counts_are_of_what_was_generated(prompts, data):
    """OpenAI's formula, one symbol after another; every number is dyadic, so that sums are exact."""
    drafted = draw_drafts(data, len(prompts))
    processor = CountPenalty(0.25, -1.5)
    logits = torch.randint(-9, 9, (len(prompts), drafted.shape[1] + 1, VOCAB)).float()
    logits[torch.rand_like(logits) < 0.1] = -math.inf
    found = processor.apply(positions(processor, prompts, drafted), logits)
    for row, place in itertools.product(range(len(prompts)), range(logits.shape[1])):
        before = drafted[row, :place].tolist()
        expected = [
            logits[row, place, symbol] - 0.25 * before.count(symbol) - -1.5 * (symbol in before)
            for symbol in range(VOCAB)
        ]
        assert found[row, place].tolist() == expected


@given(prompts_of_rows, st.data())
def test_a_state_expanded_to_branches_advances_each(prompts, data):
    """One state (B, …) as (B, R, …), each of the R branches after a symbol of its own; and back to one by choice."""
    processor = Processors([*(make() for make in OURS.values()), CountPenalty(0.5, 0.25)])
    state = processor.start(arrays(prompts), 4, VOCAB, CPU)
    symbols = torch.arange(VOCAB).expand(len(prompts), VOCAB)
    branches = map_state(lambda tensor: tensor[:, None].expand(-1, VOCAB, *tensor.shape[1:]), state)
    branches = processor.advance(branches, symbols)
    logits = torch.randn(len(prompts), VOCAB, VOCAB)
    found = processor.apply(branches, logits)
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, VOCAB - 1), min_size=len(prompts), max_size=len(prompts))))
    rows = torch.arange(len(prompts))
    advanced = processor.advance(state, chosen)
    assert all(map(torch.equal, tensors(advanced), tensors(map_state(lambda t: t[rows, chosen], branches))))
    assert torch.equal(processor.apply(advanced, logits[rows, chosen]), found[rows, chosen])


@given(prompts_of_rows, st.data())
def test_a_chain_is_that_of_transformers(prompts, data):
    names = data.draw(st.permutations(["bias", "penalty", "bigram", "user"]))
    drafted = draw_drafts(data, len(prompts))
    processor = Processors([OURS[name]() for name in names])
    state = positions(processor, prompts, drafted)
    logits = torch.randn(len(prompts), drafted.shape[1] + 1, VOCAB)
    found = processor.apply(state, logits)
    chain = LogitsProcessorList([THEIRS[name]() for name in names])
    for row, prompt in enumerate(prompts):
        for place in range(logits.shape[1]):
            prefix = torch.tensor([[*prompt, *drafted[row, :place].tolist()]], dtype=torch.int64)
            expected = chain(prefix, logits[row, place][None])[0]
            if (expected > -math.inf).any():
                torch.testing.assert_close(found[row, place], expected, rtol=0, atol=0)
            else:
                assert (found[row, place] > -math.inf).any(), "the processor that leaves nothing is passed over"


def test_the_earlier_of_two_demands_that_exclude_each_other_holds():
    all_but_0 = LogitBias(dict.fromkeys(range(1, VOCAB), -math.inf))
    not_0 = LogitBias({0: -math.inf})
    for chain, expected in (([all_but_0, not_0], [0]), ([not_0, all_but_0], [1, 2, 3, 4])):
        processor = Processors(chain)
        found = processor.apply(processor.start(arrays([[]]), 1, VOCAB, CPU), torch.zeros(1, VOCAB))
        assert found[0].isfinite().nonzero().flatten().tolist() == expected


@given(prompts_of_rows, st.integers(0, 6), st.data())
def test_min_new_tokens_is_that_of_transformers(prompts, min_new, data):
    drafted = draw_drafts(data, len(prompts))
    processor = SuppressUntil([[2], [4]], min_new)
    found = processor.apply(
        positions(processor, prompts, drafted), torch.zeros(len(prompts), drafted.shape[1] + 1, VOCAB)
    )
    for row, prompt in enumerate(prompts):
        for place in range(found.shape[1]):
            prefix = torch.tensor([[*prompt, *drafted[row, :place].tolist()]], dtype=torch.int64)
            expected = theirs.MinNewTokensLengthLogitsProcessor(len(prompt), min_new, [2, 4])
            assert torch.equal(found[row, place], expected(prefix, torch.zeros(1, VOCAB))[0])


@given(st.integers(0, 9), st.integers(1, 3), st.lists(st.integers(0, 1), max_size=9), st.data())
def test_a_sequence_is_suppressed_where_its_stop_would_end_the_row(min_new, unit, drafted, data):
    """The slow way: a symbol is forbidden if the aligned stops say that the row would end with it too early."""
    sequences = data.draw(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), max_size=3))
    stops = [SequenceStop(sequence, aligned=lambda generated, start: start % unit == 0) for sequence in sequences]
    processor = SuppressUntil(sequences, min_new, unit=unit)
    state = positions(processor, [[0, 1, 0, 1, 1]], torch.tensor([drafted], dtype=torch.int64).view(1, -1))
    found = processor.apply(state, torch.zeros(1, len(drafted) + 1, VOCAB))[0]
    for place, row in enumerate(found):
        ends = [any(stop(0, np.array([*drafted[:place], symbol])) for stop in stops) for symbol in range(VOCAB)]
        assert (row == -math.inf).tolist() == [place < min_new and end for end in ends]


def test_states_stay_in_range_when_advanced_too_far():
    processor = Processors([*(make() for make in OURS.values()), CountPenalty(1, 1), SuppressUntil([[1, 2]], 3)])
    state = processor.start(arrays([[1, 2], []]), 2, VOCAB, CPU)
    for symbol in [4, 0, 1, 2, 3] * 3:
        state = processor.advance(state, torch.tensor([symbol, 0]))
    assert processor.apply(state, torch.zeros(2, VOCAB)).shape == (2, VOCAB)
    assert isinstance(processor, Processor)


def test_nothing_waits_for_the_device_or_depends_on_values():
    """Tensors on the meta device have shapes and no values; whoever asks for one fails."""
    meta = torch.device("meta")
    others = CountPenalty(0.5), SuppressUntil([[1, 2]], 3)
    processor = Processors([*(make() for name, make in OURS.items() if name != "user"), *others])
    state = processor.start(arrays([[1, 2], []]), 9, VOCAB, meta)
    state = map_state(lambda tensor: tensor[:, None].expand(-1, 3, *tensor.shape[1:]), state)
    state = processor.advance(state, torch.zeros(2, 3, dtype=torch.int64, device=meta))
    assert processor.apply(state, torch.zeros(2, 3, VOCAB, device=meta)).shape == (2, 3, VOCAB)
    with pytest.raises(RuntimeError):
        OURS["user"]().apply(positions_on_meta(), torch.zeros(1, VOCAB, device=meta))


def positions_on_meta():
    return OURS["user"]().start(arrays([[1]]), 2, VOCAB, torch.device("meta"))


def test_a_user_function_cannot_change_what_others_see():
    def rude(input_ids, scores):
        input_ids.zero_()
        return scores.zero_()

    processor = UserProcessor(rude)
    state = processor.start(arrays([[1, 2, 3]]), 2, VOCAB, CPU)
    logits = torch.ones(1, VOCAB)
    assert (processor.apply(state, logits) == 0).all()
    assert (logits == 1).all()
    assert state[0][0, :3].tolist() == [1, 2, 3]


@pytest.mark.parametrize("result", [torch.zeros(5), torch.zeros(1, 4), None])
def test_what_a_user_function_returns_is_checked(result):
    processor = UserProcessor(lambda input_ids, scores: result)
    with pytest.raises(DecodingError, match=r"^logits processor: found .* returned, expected \(1, 5\)$"):
        processor.apply(processor.start(arrays([[1]]), 2, VOCAB, CPU), torch.zeros(1, VOCAB))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitBias({(): 1.0}), r"logit bias: found the sequence \[\], expected"),
        (lambda: LogitBias({(1, -2): 1.0}), r"logit bias: found the sequence \[1, -2\], expected"),
        (lambda: LogitBias({3: math.nan}), r"logit bias of \[3\]: found nan, expected"),
        (lambda: LogitBias({3: math.inf}), r"logit bias of \[3\]: found inf, expected"),
        (lambda: LogitBias({5: 1.0}).start([], 1, VOCAB, CPU), "logit bias: found the symbol 5, expected 0 to 4"),
        (lambda: RepetitionPenalty(0.0), "repetition_penalty: found 0.0, expected"),
        (lambda: RepetitionPenalty(math.nan), "repetition_penalty: found nan, expected"),
        (lambda: CountPenalty(math.nan), "frequency_penalty: found nan, expected"),
        (lambda: CountPenalty(0.5, math.inf), "presence_penalty: found inf, expected"),
        (lambda: NoRepeatNgram(0), "no_repeat_ngram_size: found 0, expected"),
        (lambda: SuppressUntil([[]], 1), r"min_new_tokens: found the sequence \[\], expected"),
        (lambda: SuppressUntil([[1]], -1), "min_new_tokens: found -1, expected"),
        (lambda: SuppressUntil([[1]], 1, unit=0), "min_new_tokens: found a unit of 0, expected"),
        (lambda: SuppressUntil([[9]], 1).start([], 1, VOCAB, CPU), "min_new_tokens: found the symbol 9, expected"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(DecodingError, match=f"^{message}"):
        make()

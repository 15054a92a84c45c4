"""An automaton as a mask: what it forbids, and outputs that end in an accepting state at the limit."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.decoding import Acceptor, AutomatonMask, map_state
from bytelm.encoding import ILLEGAL, get_encoding, pattern_automaton, valid_text_automaton
from bytelm.errors import DecodingError

CPU = torch.device("cpu")
EXPRESSION = r"[0-9]{4}年[0-9]{1,2}月|(はい|いいえ)。?"
DATE = pattern_automaton(get_encoding("dense-ja"), EXPRESSION)


@pytest.fixture(scope="module", params=["utf8", "utf16", "dense-ja"])
def encoding(request):
    return get_encoding(request.param)


@given(st.lists(st.integers(0, 255), max_size=6), st.integers(0, 8), st.integers(0, 2**32))
def test_the_mask_is_that_of_the_state_and_nothing_after_an_illegal_draft(draft, num_legal, seed):
    rng = np.random.default_rng(seed)
    mask = AutomatonMask(DATE)
    state, current = mask.start([np.array([7], np.uint8)], 9, 256, CPU), 0
    for place in range(num_legal + len(draft)):
        legal = place < num_legal
        symbol = int(rng.choice(np.flatnonzero(DATE.allowed[current]))) if legal else draft[place - num_legal]
        current = int(DATE.step(current, symbol))
        state = mask.advance(state, torch.tensor([symbol]))
        found = mask.apply(state, torch.zeros(1, 256))[0]
        expected = DATE.allowed[current] if current != ILLEGAL else np.ones(256, bool)
        assert (found.isfinite().numpy() == expected).all()


def decode(automaton, rng, length, limit=None):
    """Draw ``length`` symbols under the mask from a model that knows nothing."""
    mask = AutomatonMask(automaton, limit=limit)
    state, data = mask.start([np.array([], np.uint8)], length, 256, CPU), []
    for _ in range(length):
        logits = mask.apply(state, torch.zeros(1, 256))
        data.append(int(rng.choice(np.flatnonzero(logits[0].isfinite().numpy()))))
        state = mask.advance(state, torch.tensor(data[-1:]))
    return bytes(data)


def text_of(encoding, data):
    eos = encoding.controls["<|eos|>"]
    for end in range(0, len(data) + 1, encoding.unit):
        if data[end : end + len(eos)] == eos:
            return encoding.decode(data[:end])
    return encoding.decode(data)


@pytest.mark.parametrize("expression", [EXPRESSION, "[ぁ-んー]+", "(?s).*", r"\w{3,9}"])
def test_an_output_at_the_limit_matches(encoding, expression):
    automaton = pattern_automaton(encoding, expression)
    rng = np.random.default_rng(1)
    for length in [*range(14, 26, 2)] * 3:
        text = text_of(encoding, decode(automaton, rng, length, limit=length))
        assert re.fullmatch(expression, text) is not None


def test_without_a_limit_outputs_are_cut_where_they_do_not_match(encoding):
    automaton = pattern_automaton(encoding, r"\w{3,9}")
    rng = np.random.default_rng(1)
    states = [automaton.run(decode(automaton, rng, 4)) for _ in range(20)]
    assert ILLEGAL not in states
    assert not automaton.accepting[states].all()


def test_every_limit_is_met_where_the_words_are_bytes():
    """All lengths, also odd ones, of valid text: never a word that is cut."""
    encoding = get_encoding("dense-ja")
    automaton = valid_text_automaton(encoding)
    rng = np.random.default_rng(2)
    for length in range(1, 40):
        text_of(encoding, decode(automaton, rng, length, limit=length))  # raises where a word is cut


def test_where_nothing_fits_the_limit_does_not_count():
    """UTF-16 has words of two and four bytes: an odd limit cannot be met, and still every byte is legal."""
    automaton = valid_text_automaton(get_encoding("utf16"))
    data = decode(automaton, np.random.default_rng(3), 7, limit=7)
    assert automaton.run(data) != ILLEGAL
    assert automaton.accepting[automaton.run(data[:6])]


def test_rows_and_positions_have_states_of_their_own():
    automaton = pattern_automaton(get_encoding("utf8"), "ab?c")
    assert isinstance(automaton, Acceptor)
    mask = AutomatonMask(automaton, limit=3)
    state = mask.start([np.array([1], np.uint8)] * 2, 4, 256, CPU)
    state = mask.advance(state, torch.full((2,), ord("a")))
    state = map_state(lambda tensor: tensor[:, None].expand(-1, 3), state)
    state = mask.advance(state, torch.tensor([[ord("b"), ord("c"), 0], [0, 0, ord("b")]]))
    found = mask.apply(state, torch.zeros(2, 3, 256)).isfinite()
    eos = get_encoding("utf8").controls["<|eos|>"][0]
    everything = list(range(256))
    expected = [[[ord("c")], [eos], everything], [everything, everything, [ord("c")]]]
    assert [[place.nonzero().flatten().tolist() for place in row] for row in found] == expected


def test_nothing_waits_for_the_device():
    meta = torch.device("meta")
    mask = AutomatonMask(valid_text_automaton(get_encoding("utf8")), limit=9)
    state = mask.start([np.array([1], np.uint8)] * 2, 4, 256, meta)
    state = mask.advance(state, torch.zeros(2, dtype=torch.int64, device=meta))
    assert mask.apply(state, torch.zeros(2, 256, device=meta)).shape == (2, 256)


def test_bad_options_are_named():
    automaton = pattern_automaton(get_encoding("utf8"), "はい|いいえ")
    with pytest.raises(DecodingError, match=r"^max_new: found 5, expected at least 6, the shortest that is allowed$"):
        AutomatonMask(automaton, limit=5)
    with pytest.raises(DecodingError, match=r"^constraint: found an automaton over 256 symbols, expected 300$"):
        AutomatonMask(automaton, limit=6).start([], 1, 300, CPU)


def test_logits_are_not_changed():
    mask = AutomatonMask(valid_text_automaton(get_encoding("utf8")))
    logits = torch.zeros(1, 256)
    found = mask.apply(mask.start([np.array([], np.uint8)], 1, 256, CPU), logits)
    assert (logits == 0).all()
    assert (found == -math.inf).any()

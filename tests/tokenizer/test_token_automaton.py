"""Automata over tokens: what they accept is what the tokens' bytes say."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.encoding import ILLEGAL
from bytelm.errors import DecodingError
from bytelm.tokenizer import token_automaton as module

PATTERNS = {
    None: re.compile(r".*", re.DOTALL),
    "(the|ferry|川の水){1,3}": re.compile(r"(the|ferry|川の水){1,3}"),
    "[0-9]{2,4} ?(il|n[io])?": re.compile(r"[0-9]{2,4} ?(il|n[io])?"),
    "[^a-z]*\U0001f41f": re.compile("[^a-z]*\U0001f41f"),
}


@pytest.fixture(scope="module")
def automata(toy):
    return {pattern: toy.automaton(pattern) for pattern in PATTERNS}


def run(automaton, ids, state=0):
    for number in ids:
        state = int(automaton.transitions[state, number])
        if state == ILLEGAL:
            break
    return state


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_walk_gives_text_that_matches(toy, automata, pattern):
    """Any legal ids; then on until the text may end."""
    automaton = automata[pattern]
    legal = automaton.transitions != ILLEGAL
    assert legal.any(axis=1).all()
    rng = np.random.default_rng(0)
    several = 0
    for _ in range(200):
        state, ids = 0, []
        for _ in range(int(rng.integers(1, 12))):
            ids.append(int(rng.choice(np.flatnonzero(legal[state]))))
            state = int(automaton.transitions[state, ids[-1]])
        for _ in range(200):
            if automaton.accepting[state]:
                break
            ids.append(int(rng.choice(np.flatnonzero(legal[state]))))
            state = int(automaton.transitions[state, ids[-1]])
        else:
            continue  # a loop that was not left
        body = ids[: ids.index(toy.eos_id)] if toy.eos_id in ids else ids
        assert set(ids[len(body) :]) <= {toy.eos_id}
        assert PATTERNS[pattern].fullmatch(toy.decode(body))
        several += any(len(toy.token_bytes(i)) > 1 for i in body)
    assert several > 20


@given(st.text(st.sampled_from("the fry川の水0129iln\n🐟"), max_size=12))
@settings(max_examples=150, deadline=None)
def test_every_cut_of_a_text_is_accepted_as_the_expression_says(toy, automata, text):
    bytewise = by_bytes(toy, text)
    for pattern, expression in PATTERNS.items():
        automaton = automata[pattern]
        for ids in (toy.encode(text).tolist(), bytewise):
            state = run(automaton, ids)
            assert (state != ILLEGAL and bool(automaton.accepting[state])) == bool(expression.fullmatch(text))


def by_bytes(tokenizer, text):
    table = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}
    return [table[bytes([byte])] for byte in text.encode()]


def test_controls_and_bytes_that_are_no_text_are_illegal(added):
    automaton = added.automaton()
    extra = [number for number in added.controls.values() if number != added.eos_id]
    assert extra
    assert (automaton.transitions[:, extra] == ILLEGAL).all()
    stray = [i for i in range(added.vocab_size) if added.token_bytes(i)[0] in range(0xF5, 0x100)]
    assert len(stray) == 11
    assert (automaton.transitions[:, stray] == ILLEGAL).all()
    after = automaton.transitions[0, added.eos_id]
    assert np.flatnonzero(automaton.transitions[after] != ILLEGAL).tolist() == [added.eos_id]


def test_too_large_a_table_is_refused(toy, monkeypatch):
    monkeypatch.setattr(module, "MAX_ENTRIES", 20 * toy.vocab_size)
    toy.automaton("(ab){1,8}")
    with pytest.raises(DecodingError, match=r"pattern '\(ab\)\{1,30\}': found more than 20 states with"):
        toy.automaton("(ab){1,30}")

"""The automaton of an encoding against brute force, and a model under its mask."""

import numpy as np
import pytest
from byte_strategies import ENCODINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.encoding import ESCAPES, ILLEGAL, DenseEncoding, get_encoding
from bytelm.errors import EncodingError

OPTIONS = [{}, {"controls": ["<|eos|>"]}, {"escapes": True}, {"controls": ["<|pad|>", "<|user4|>"], "escapes": True}]


def all_words(encoding, controls=(), escapes=False):
    """The legal words, left-aligned in 32 bits, and their lengths."""
    values = np.flatnonzero(encoding.lengths)
    if not escapes:
        values = values[(values < ESCAPES.start) | (values >= ESCAPES.stop)]
    extra = [int.from_bytes(encoding.controls[name].ljust(4, b"\0"), "big") for name in controls]
    words = np.concatenate([encoding.words[values].astype(np.int64), np.array(extra, np.int64)])
    return words, np.concatenate([encoding.lengths[values], [len(encoding.controls[name]) for name in controls]])


def continuations(words, lengths):
    """For each length n: all beginnings of words of n bytes, and whether a byte goes on with them (1), ends a word (2).

    Yields uint8[beginnings, n] and uint8[beginnings, 256].
    """
    for n in range(4):
        longer = lengths > n
        beginnings, of = np.unique(words[longer] >> 8 * (4 - n), return_inverse=True)
        what = np.zeros((len(beginnings), 256), np.uint8)
        what[of, words[longer] >> 8 * (3 - n) & 0xFF] = np.where(lengths[longer] == n + 1, 2, 1)
        yield (beginnings[:, None] >> 8 * np.arange(n)[::-1]).astype(np.uint8), what


@pytest.mark.parametrize("options", OPTIONS, ids=["text", "eos", "escapes", "both"])
def test_legal_bytes_of_every_reachable_state_are_those_of_brute_force(encoding, options):
    automaton = encoding.automaton(**options)
    reached = []
    for beginnings, what in continuations(*all_words(encoding, **options)):
        states = np.zeros(len(beginnings), np.int32)
        for symbols in beginnings.T:
            states = automaton.step(states, symbols)
        assert (states != ILLEGAL).all()
        assert np.array_equal(automaton.mask(states), what > 0)
        assert np.array_equal(automaton.transitions[states] == 0, what == 2)
        assert states[::97].tolist() == [automaton.run(bytes(beginning)) for beginning in beginnings[::97]]
        reached.append(states)
    assert np.unique(np.concatenate(reached)).tolist() == list(range(len(automaton)))


def test_no_two_states_are_alike(encoding):
    automaton = encoding.automaton(controls=list(encoding.controls), escapes=True)
    assert len(np.unique(automaton.transitions, axis=0)) == len(automaton)


def test_a_small_code_has_the_automaton_one_would_draw():
    """124 stoppers and 124 continuers need words of three bytes, and no rank is left out of the four-byte tier."""
    automaton = DenseEncoding("half", 124, 124, "").automaton()
    assert automaton.allowed[0].sum() == 248
    assert not automaton.allowed[:, 248:].any()
    assert automaton.run(b"\x00\x7c\x00") == 0
    assert automaton.run(b"\xf8") == ILLEGAL
    assert automaton.run(b"\x7c" * 4) == ILLEGAL


@given(st.sampled_from(ENCODINGS), st.lists(st.binary(max_size=4), min_size=1, max_size=5), st.binary(min_size=5))
@settings(deadline=None)
def test_steps_of_a_batch_are_runs_of_its_rows(encoding, rows, more):
    automaton = encoding.automaton()
    states = np.array([automaton.run(row) for row in rows])
    symbols = np.frombuffer(more, np.uint8)[: len(rows)]
    expected = [automaton.run(row + bytes([symbol])) for row, symbol in zip(rows, symbols, strict=True)]
    assert automaton.step(states, symbols).tolist() == expected


def generate(legal, automaton, rng, length: int) -> bytes:
    """Sample from a model that wants what is illegal: its favourite bytes are those that the automaton forbids."""
    data = b""
    state = 0
    for _ in range(length):
        logits = rng.gumbel(size=256) + 20.0 * ~legal[state]
        if automaton is not None:
            logits[~automaton.mask([state])[0]] = -np.inf
        symbol = int(logits.argmax())
        data += bytes([symbol])
        if automaton is not None:
            state = int(automaton.step([state], [symbol])[0])
    return data


def test_a_model_under_the_mask_emits_what_decodes(encoding):
    rng = np.random.default_rng(7)
    automaton = encoding.automaton()
    refused = 0
    for _ in range(20):
        data = generate(automaton.allowed, automaton, rng, 40)
        text = encoding.decode(data[: encoding.complete(data)])
        assert encoding.encode(text).tobytes() == data[: encoding.complete(data)]
        try:
            encoding.decode(generate(automaton.allowed, None, rng, 40))
        except EncodingError:
            refused += 1
    assert refused == 20  # without the mask, the same model emits nothing that decodes


def test_an_unknown_control_is_refused():
    with pytest.raises(EncodingError, match=r"controls: found '<\|stop\|>', expected some of <\|pad\|>"):
        get_encoding("utf8").automaton(controls=["<|stop|>"])

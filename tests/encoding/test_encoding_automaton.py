"""The automaton of an encoding against brute force, and a model under its mask."""

import numpy as np
import pytest
from byte_strategies import ENCODINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.encoding import ESCAPES, ILLEGAL, DenseEncoding, get_encoding
from bytelm.errors import EncodingError

OPTIONS = [{}, {"controls": ["<|eos|>"]}, {"escapes": True}, {"controls": ["<|pad|>", "<|user4|>"], "escapes": True}]


def continuations(encoding, controls=(), escapes=False) -> dict[bytes, dict[int, bool]]:
    """For each beginning of a legal word, the bytes that go on with it, and whether the word ends with them."""
    values = np.flatnonzero(encoding.lengths)
    if not escapes:
        values = values[(values < ESCAPES.start) | (values >= ESCAPES.stop)]
    extra = [int.from_bytes(encoding.controls[name].ljust(4, b"\0"), "big") for name in controls]
    words = np.concatenate([encoding.words[values].astype(np.int64), np.array(extra, np.int64)])
    lengths = np.concatenate([encoding.lengths[values], [len(encoding.controls[name]) for name in controls]])
    found: dict[bytes, dict[int, bool]] = {}
    for length in range(1, 5):
        for ends in (False, True):
            there = lengths == length if ends else lengths > length
            for string in np.unique(words[there] >> 8 * (4 - length)).tolist():
                *beginning, byte = string.to_bytes(length, "big")
                found.setdefault(bytes(beginning), {})[byte] = ends
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=["text", "eos", "escapes", "both"])
def test_legal_bytes_of_every_reachable_state_are_those_of_brute_force(encoding, options):
    automaton = encoding.automaton(**options)
    reached = set()
    for beginning, expected in continuations(encoding, **options).items():
        state = automaton.run(beginning)
        assert state != ILLEGAL
        reached.add(state)
        assert np.flatnonzero(automaton.mask([state])[0]).tolist() == sorted(expected)
        for byte, ends in expected.items():
            assert (automaton.transitions[state, byte] == 0) == ends
    assert reached == set(range(len(automaton)))


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

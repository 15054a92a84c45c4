"""Automata over tokens, each of several bytes, from an automaton over bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding import ILLEGAL, get_encoding, pattern_automaton, valid_text_automaton
from bytelm.errors import DecodingError

MAX_ENTRIES: Final = 1 << 25
"""The most entries of a table of transitions, of 4 bytes each."""


@dataclass
class TokenAutomaton:
    """A deterministic automaton over ids that starts in state 0.

    Attributes:
        transitions: int32[S, V], the state after an id; ``ILLEGAL`` where it must not follow.
        accepting: bool[S], where a text may end.
    """

    transitions: NDArray[np.int32]
    accepting: NDArray[np.bool_]


def token_automaton(texts: Sequence[bytes], eos_id: int, pattern: str | None = None) -> TokenAutomaton:
    """The automaton of all ids whose bytes are the UTF-8 of a text that ``pattern`` matches, with EOS after it.

    An id is legal where its bytes lead through the automaton over bytes. That one never gets stuck, and each byte has a
    token of its own, so this one does not either.

    Args:
        texts: the bytes of each id; empty for controls, which are never legal, but EOS.
        eos_id: of EOS.
        pattern: an expression over characters; None: any text.
    Raises:
        DecodingError: see :func:`bytelm.encoding.pattern_automaton`; or S V is more than ``MAX_ENTRIES``.
    """
    utf8 = get_encoding("utf8")
    over_bytes = valid_text_automaton(utf8) if pattern is None else pattern_automaton(utf8, pattern)
    eos = utf8.controls["<|eos|>"]
    # A row that nothing leaves, for what is illegal, and EOS apart: as bytes of a token it is no text.
    table = np.vstack([over_bytes.transitions, np.full((1, 256), ILLEGAL, dtype=np.int32)])
    after_eos = table[:, eos[0]].copy()
    table[:, eos[0]] = ILLEGAL
    table[table == ILLEGAL] = len(over_bytes)
    groups = list(_by_length(texts))
    numbers, rows = {0: 0}, []
    waiting = [0]
    for state in waiting:  # grows as it goes
        reached = np.full(len(texts), len(over_bytes), dtype=np.int32)
        for ids, columns in groups:
            states = np.full(len(ids), state)
            for column in columns:
                states = table[states, column]
            reached[ids] = states
        reached[eos_id] = after_eos[state] if after_eos[state] != ILLEGAL else len(over_bytes)
        for target in np.unique(reached).tolist():
            if target not in numbers and target != len(over_bytes):
                numbers[target] = len(numbers)
                waiting.append(target)
        rows.append(reached)
        if len(numbers) * len(texts) > MAX_ENTRIES:
            raise DecodingError(
                f"pattern {pattern!r}: found more than {len(numbers) - 1} states with {len(texts)} tokens, expected a"
                " smaller pattern"
            )
    renumbered = np.full(len(table), ILLEGAL, dtype=np.int32)
    renumbered[list(numbers)] = list(numbers.values())
    return TokenAutomaton(renumbered[np.stack(rows)], over_bytes.accepting[list(numbers)])


def _by_length(texts: Sequence[bytes]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Ids whose texts have the same length, and these texts, byte by byte: uint8[length, n]."""
    lengths = np.array([len(text) for text in texts])
    for length in np.unique(lengths[lengths > 0]).tolist():
        ids = np.flatnonzero(lengths == length)
        joined = np.frombuffer(b"".join(texts[i] for i in ids.tolist()), dtype=np.uint8)
        yield ids, np.ascontiguousarray(joined.reshape(len(ids), length).T)

"""The code words of an encoding as a trie, automata over bytes, and the smallest that accepts the words."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_WORD: Final = 4
ILLEGAL: Final = np.iinfo(np.int32).min
"""Trie entry and automaton state: no word goes on with this byte."""


def build_trie(words: NDArray[np.uint64], lengths: NDArray[np.uint8], values: NDArray[np.int32]) -> NDArray[np.int32]:
    """The code words as a table of nodes: int32[nodes, 256], the root first.

    ``trie[node, byte]`` is the value of the word that ends with the byte, or minus the number of the node where the
    word goes on, or ``ILLEGAL``.

    Args:
        words: uint64[n], left-aligned in 32 bits; distinct and prefix-free.
        lengths: uint8[n], in bytes.
        values: int32[n], >= 0.
    """
    nodes_by_depth = [np.unique(words[lengths > depth] >> _below(depth)) for depth in range(MAX_WORD)]
    first = np.cumsum([0, *map(len, nodes_by_depth)])
    trie = np.full((first[-1], 256), ILLEGAL, dtype=np.int32)
    for depth, nodes in enumerate(nodes_by_depth):
        there = lengths > depth
        node = first[depth] + np.searchsorted(nodes, words[there] >> _below(depth))
        byte = (words[there] >> 8 * (MAX_WORD - 1 - depth)) & 0xFF
        ends = lengths[there] == depth + 1
        trie[node[ends], byte[ends]] = values[there][ends]
        if depth + 1 < MAX_WORD:
            child = np.searchsorted(nodes_by_depth[depth + 1], words[there][~ends] >> _below(depth + 1))
            trie[node[~ends], byte[~ends]] = -(first[depth + 1] + child)
    return trie


def _below(depth: int) -> np.uint64:
    """How far to shift a left-aligned word so that its first ``depth`` bytes remain. 64 bits: 32 cannot shift by 32."""
    return np.uint64(8 * (MAX_WORD - depth))


class Automaton:
    """A deterministic automaton over bytes. State 0 is the start.

    Attributes:
        transitions: int32[S, 256], the state after a byte; ``ILLEGAL`` where none may be this byte.
        accepting: bool[S], whether a byte string may end in a state.
        allowed: bool[S, 256], the legal next bytes of each state.
    """

    def __init__(self, transitions: NDArray[np.int32], accepting: NDArray[np.bool_]) -> None:
        self.transitions, self.accepting, self.allowed = transitions, accepting, transitions != ILLEGAL
        for array in (self.transitions, self.accepting, self.allowed):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.transitions)

    def __repr__(self) -> str:
        return f"Automaton({len(self)} states)"

    def run(self, data: bytes | bytearray | NDArray[np.uint8], state: int = 0) -> int:
        """The state after ``data``; ``ILLEGAL`` as soon as a byte was not legal."""
        for byte in bytes(data):
            if state == ILLEGAL:
                break
            state = int(self.transitions[state, byte])
        return state

    def step(self, states: ArrayLike, symbols: ArrayLike) -> NDArray[np.int32]:
        """The states [B] after one byte [B] each; an illegal state stays illegal."""
        before = np.asarray(states)
        after = self.transitions[np.where(before == ILLEGAL, 0, before), np.asarray(symbols)]
        return np.where(before == ILLEGAL, np.int32(ILLEGAL), after)

    def mask(self, states: ArrayLike) -> NDArray[np.bool_]:
        """The bytes that may follow in each state [B]: bool[B, 256]. Logits outside are to be set to -inf.

        At least one byte is legal in every state, and any sequence of legal bytes can be completed to an accepted one.
        """
        return self.allowed[np.asarray(states)]


def word_automaton(trie: NDArray[np.int32]) -> Automaton:
    """The smallest automaton whose accepted byte strings are sequences of the code words of a trie.

    State 0 is also the only accepting state: a word has just ended.
    """
    transitions = _minimise(trie)
    return Automaton(transitions, np.arange(len(transitions)) == 0)


def _minimise(trie: NDArray[np.int32]) -> NDArray[np.int32]:
    """Merge the nodes of a trie from which the same byte strings lead to the end of a word (Revuz 1992)."""
    rows: dict[bytes, int] = {}
    table: list[NDArray[np.int32]] = []
    state_of = np.zeros(len(trie), dtype=np.int32)
    for node in range(len(trie) - 1, -1, -1):  # children have higher numbers
        row = trie[node]
        ends, goes_on = row >= 0, (row < 0) & (row != ILLEGAL)
        merged = np.where(ends, np.int32(0), np.int32(ILLEGAL))
        merged[goes_on] = state_of[-row[goes_on]]
        key = merged.tobytes()
        if node and key not in rows:
            rows[key] = len(rows) + 1
            table.append(merged)
        state_of[node] = 0 if node == 0 else rows[key]
    return np.stack([merged, *table])

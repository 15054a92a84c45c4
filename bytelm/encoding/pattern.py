"""Automata over the bytes of an encoding: of the texts that an expression matches, and of all texts."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.automaton import ILLEGAL, Automaton
from bytelm.encoding.base import Encoding
from bytelm.encoding.expression import CharacterAutomaton, character_automaton, too_large
from bytelm.errors import EncodingError

MAX_BYTE_STATES: Final = 1 << 16
"""The most states of an automaton over bytes, of 1 KiB each."""

_EOS: Final = "<|eos|>"


def pattern_automaton(encoding: Encoding, expression: str) -> Automaton:
    """The automaton of the code of every text that ``re.fullmatch(expression, text)`` matches, and of EOS after it.

    A byte string is accepted where it is the code of such a text, with any number of EOS words after it. A legal byte
    never leads where no match can be reached. EOS is the only control that is ever legal, and after it only EOS is.

    Args:
        encoding: whose code words.
        expression: in the syntax of Python's ``re``; the whole text must match. Without anchors, boundaries,
            lookarounds, back references, atomic groups and possessive repetitions. ``.`` is not a line break, unless
            the expression says ``(?s)``.
    Raises:
        DecodingError: the expression is malformed, unsupported, matches no text, or needs too large an automaton.
    """
    automaton = character_automaton(expression)
    after, accepting = _with_eos(automaton)
    nodes = _merge(encoding.trie, automaton.classes)
    root = _add_word(nodes, len(nodes) - 1, encoding.controls[_EOS], after.shape[1] - 1)
    byte_states = _compose(nodes, root, after)
    if byte_states is None:
        raise too_large(expression)
    return Automaton(byte_states, np.append(accepting, np.zeros(len(byte_states) - len(accepting), dtype=np.bool_)))


def valid_text_automaton(encoding: Encoding) -> Automaton:
    """The automaton of the code of every text, and of EOS after it: :func:`pattern_automaton` of any characters."""
    return pattern_automaton(encoding, "(?s:.)*")


def control_start(encoding: Encoding, control: str) -> bytes:
    """The shortest beginning of a control's code word with which no code word of text begins.

    Raises:
        EncodingError: the encoding does not have the control.
    """
    if control not in encoding.controls:
        raise EncodingError(f"control: found {control!r}, expected one of {', '.join(encoding.controls)}")
    word, node = encoding.controls[control], 0
    for length, byte in enumerate(word, start=1):
        node = -int(encoding.trie[node, byte])
        if node == -ILLEGAL:
            return word[:length]
    raise AssertionError("a control's word is the beginning of another")


def _with_eos(automaton: CharacterAutomaton) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The automaton with one more class, EOS, and one more state, after EOS: both the last."""
    num_states, num_classes = automaton.transitions.shape
    after = np.full((num_states + 1, num_classes + 1), ILLEGAL, dtype=np.int32)
    after[:-1, :-1] = automaton.transitions
    accepting = np.append(automaton.accepting, True)
    after[accepting, -1] = num_states
    return after, accepting


# Nodes: a list of int32[256]. An entry is the class of the word that ends with the byte, or -1 - k where the word goes on
# in node k, or ILLEGAL. A node stands after those it leads to.


def _merge(trie: NDArray[np.int32], classes: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """The nodes of a trie, with classes for characters and equal ones merged; the root is the last."""
    levels = [slice(0, 1)]
    while levels[-1].stop < len(trie):
        level = trie[levels[-1]]
        levels.append(slice(levels[-1].stop, levels[-1].stop + np.count_nonzero((level < 0) & (level != ILLEGAL))))
    nodes: list[NDArray[np.int32]] = []
    numbers: dict[bytes, int] = {}
    merged = np.empty(len(trie), dtype=np.int32)
    for level in reversed(levels):
        rows = trie[level]
        ends, goes_on = rows >= 0, (rows < 0) & (rows != ILLEGAL)
        mapped = np.full_like(rows, ILLEGAL)
        mapped[ends] = classes[rows[ends]]
        mapped[goes_on] = -1 - merged[-rows[goes_on]]
        for node, row in enumerate(mapped, start=level.start):
            key = row.tobytes()
            if key not in numbers:
                numbers[key] = len(nodes)
                nodes.append(row)
            merged[node] = numbers[key]
    return nodes


def _add_word(nodes: list[NDArray[np.int32]], node: int, word: bytes, value: int) -> int:
    """Append copies of the nodes along a word, with the word; the number of the copy of ``node``."""
    row = nodes[node].copy() if node >= 0 else np.full(256, ILLEGAL, dtype=np.int32)
    entry = int(row[word[0]])
    if len(word) == 1:
        assert entry == ILLEGAL
        row[word[0]] = value
    else:
        assert entry < 0
        row[word[0]] = -1 - _add_word(nodes, -1 if entry == ILLEGAL else -1 - entry, word[1:], value)
    nodes.append(row)
    return len(nodes) - 1


def _reached(nodes: list[NDArray[np.int32]], root: int) -> list[int]:
    """The nodes that the root leads to, and itself, those first that lead to no others."""
    found = {root}
    for node in range(root, -1, -1):
        if node in found:
            row = nodes[node]
            found.update((-1 - np.unique(row[(row < 0) & (row != ILLEGAL)])).tolist())
    return sorted(found)


def _compose(nodes: list[NDArray[np.int32]], root: int, after: NDArray[np.int32]) -> NDArray[np.int32] | None:
    """The transitions over bytes: first the states of ``after`` where a word has just ended, then those within words,
    of which no two are alike. None where they are too many.
    """
    order = _reached(nodes, root)
    place = {node: index for index, node in enumerate(order)}
    table = np.stack([nodes[node] for node in order])
    ends, goes_on = table >= 0, (table < 0) & (table != ILLEGAL)
    classes = table[ends]
    children = [[place[-1 - entry] for entry in row[there].tolist()] for row, there in zip(table, goes_on, strict=True)]
    numbers = {np.full(256, ILLEGAL, dtype=np.int32).tobytes(): ILLEGAL}
    between, within = [], []
    for following in after:
        rows = np.full_like(table, ILLEGAL)
        rows[ends] = following[classes]
        states: list[int] = []
        for row, there, below in zip(rows, goes_on, children, strict=True):
            if below:
                row[there] = [states[child] for child in below]
            key = row.tobytes()
            if len(states) == len(order) - 1:  # the root
                between.append(row)
            elif key not in numbers:
                numbers[key] = len(after) + len(within)
                within.append(row)
            states.append(numbers.get(key, ILLEGAL))
        if len(after) + len(within) > MAX_BYTE_STATES:
            return None
    return np.stack(between + within)

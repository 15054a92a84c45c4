"""A regular expression over characters as a deterministic automaton over classes of characters.

The expression is read by the parser of Python's ``re``, and sets of characters that depend on Unicode properties or on
letter case are asked of ``re`` itself, so both mean the same by it.
"""

import re
from collections.abc import Iterable
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.automaton import ILLEGAL
from bytelm.encoding.convert import NUM_CODE_POINTS
from bytelm.errors import DecodingError

MAX_STATES: Final = 1 << 14
"""The most states that an automaton on the way may have."""

_CATEGORIES: Final = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}
_UNSUPPORTED: Final = {
    op.ASSERT: "a lookaround",
    op.ASSERT_NOT: "a lookaround",
    op.AT: "an anchor or boundary (the whole text is matched)",
    op.GROUPREF: "a back reference",
    op.GROUPREF_EXISTS: "a conditional group",
    op.ATOMIC_GROUP: "an atomic group",
    op.POSSESSIVE_REPEAT: "a possessive repetition",
}
_SET_FLAGS: Final = re.ASCII | re.IGNORECASE | re.DOTALL
_TYPE_FLAGS: Final = re.ASCII | re.LOCALE | re.UNICODE

Intervals = NDArray[np.int64]
"""int64[n, 2], a set of code points: [first, end) of each run, ascending, apart from each other."""


class CharacterAutomaton(NamedTuple):
    """A deterministic automaton over characters. It starts in state 0; an accepting state can be reached from all."""

    classes: NDArray[np.int32]
    """int32[0x110000], the class of each code point; the automaton tells no two of a class apart."""
    transitions: NDArray[np.int32]
    """int32[R, C], the state after a character of a class, or ``ILLEGAL``."""
    accepting: NDArray[np.bool_]
    """bool[R], where the text may end."""


def character_automaton(expression: str) -> CharacterAutomaton:
    """The automaton of the texts that ``re.fullmatch(expression, text)`` matches.

    Everything that ``re`` knows is allowed, but for anchors, boundaries, lookarounds, back references, atomic groups and
    possessive repetitions. Thompson's and the subset construction.

    Raises:
        DecodingError: the expression is malformed or unsupported, matches no text, or needs more than 16384 states.
    """
    try:
        tree = parser.parse(expression)
        nfa = _Nfa(expression)
        end = nfa.sequence(tree, tree.state.flags, nfa.state())
    except (re.error, OverflowError) as error:
        raise DecodingError(f"pattern {expression!r}: {error}") from None
    except RecursionError:
        raise DecodingError(f"pattern {expression!r}: found too many groups in each other, expected fewer") from None
    classes, members = _partition(list(nfa.sets.values()))
    transitions, accepting = _determinise(nfa, end, members)
    alive = _alive(transitions, accepting)
    if not alive[0]:
        raise DecodingError(f"pattern {expression!r}: found no text that it matches, expected at least one")
    number = np.where(alive, np.cumsum(alive) - 1, ILLEGAL).astype(np.int32)
    kept = transitions[alive]
    kept = np.where(kept == ILLEGAL, ILLEGAL, number[np.maximum(kept, 0)]).astype(np.int32)
    return CharacterAutomaton(classes, kept, accepting[alive])


class _Nfa:
    """Thompson's construction (1968): states with steps on sets of characters and steps on nothing."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.steps: list[list[tuple[int, int]]] = []
        """For each state, (number of the set, next state)."""
        self.jumps: list[list[int]] = []
        self.sets: dict[tuple[str, int], Intervals] = {}
        self._numbers: dict[tuple[str, int], int] = {}

    def state(self) -> int:
        if len(self.steps) >= MAX_STATES:
            raise too_large(self.expression)
        self.steps.append([])
        self.jumps.append([])
        return len(self.steps) - 1

    def sequence(self, items: Iterable[tuple[Any, Any]], flags: int, start: int) -> int:
        """Add the items, one after another from ``start``; the state where they end."""
        for kind, argument in items:
            start = self._item(kind, argument, flags, start)
        return start

    def _item(self, kind: Any, argument: Any, flags: int, start: int) -> int:
        if kind in _UNSUPPORTED:
            raise DecodingError(
                f"pattern {self.expression!r}: found {_UNSUPPORTED[kind]}, expected what a finite automaton can match"
            )
        if kind is op.BRANCH:
            ends = [self.sequence(branch, flags, start) for branch in argument[1]]
            end = self.state()
            for last in ends:
                self.jumps[last].append(end)
            return end
        if kind is op.SUBPATTERN:
            _, added, removed, items = argument
            kept = flags & ~_TYPE_FLAGS if added & _TYPE_FLAGS else flags
            return self.sequence(items, (kept | added) & ~removed, start)
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            return self._repeat(*argument, flags, start)
        end = self.state()
        self.steps[start].append((self._set(kind, argument, flags), end))
        return end

    def _repeat(self, least: int, most: int, items: Any, flags: int, start: int) -> int:
        if items.getwidth()[1] == 0:  # matches only the empty text, however often
            least, most = min(least, 1), min(most, 1)
        for _ in range(least):
            start = self.sequence(items, flags, start)
        end = self.state()
        if most == op.MAXREPEAT:
            # A loop has states of its own: others that leave or enter ``start`` must not come into it.
            loop = self.state()
            self.jumps[start].append(loop)
            self.jumps[self.sequence(items, flags, loop)].append(loop)
            self.jumps[loop].append(end)
            return end
        for _ in range(most - least):
            self.jumps[start].append(end)
            again = self.state()
            self.jumps[start].append(again)
            start = self.sequence(items, flags, again)
        self.jumps[start].append(end)
        return end

    def _set(self, kind: Any, argument: Any, flags: int) -> int:
        """The number of the set of characters of a literal, a dot or a class."""
        items = {op.LITERAL: [(kind, argument)], op.NOT_LITERAL: [(op.NEGATE, None), (op.LITERAL, argument)]}
        source = "." if kind is op.ANY else f"[{''.join(map(_source, items.get(kind, argument)))}]"
        key = (source, flags & _SET_FLAGS)
        if key not in self._numbers:
            self._numbers[key] = len(self.sets)
            plain = kind is op.LITERAL and not flags & re.IGNORECASE
            self.sets[key] = np.array([[argument, argument + 1]]) if plain else _ask(*key)
        return self._numbers[key]

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        """The states that are reached on nothing."""
        found = set(states)
        waiting = list(found)
        while waiting:
            new = [state for state in self.jumps[waiting.pop()] if state not in found]
            found.update(new)
            waiting += new
        return frozenset(found)


def too_large(expression: str) -> DecodingError:
    """The error for a pattern that needs too many states."""
    return DecodingError(f"pattern {expression!r}: found too many states, expected a smaller pattern")


def _source(item: tuple[Any, Any]) -> str:
    """An item of a class as it stands between brackets."""
    kind, argument = item
    if kind is op.NEGATE:
        return "^"
    if kind is op.CATEGORY:
        return _CATEGORIES[argument]
    first, last = argument if kind is op.RANGE else (argument, argument)
    return f"\\U{first:08x}-\\U{last:08x}"


def _ask(source: str, flags: int) -> Intervals:
    """The characters that ``re`` finds in a class."""
    everything = np.arange(NUM_CODE_POINTS, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    spans = [match.span() for match in re.compile(f"{source}+", flags).finditer(everything)]
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


def _partition(sets: list[Intervals]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Classes of code points that are in the same sets: int32[0x110000], and bool[sets, C]. Surrogates are in none."""
    surrogates = [0xD800, 0xE000]
    bounds = np.unique(np.concatenate([[0, *surrogates, NUM_CODE_POINTS], *(each.ravel() for each in sets)]))
    change = np.zeros((len(sets), len(bounds)), dtype=np.int8)
    for row, each in zip(change, sets, strict=True):
        row[np.searchsorted(bounds, each[:, 0])] += 1
        row[np.searchsorted(bounds, each[:, 1])] -= 1
    inside = np.cumsum(change[:, :-1], axis=1) > 0
    inside[:, (bounds[:-1] >= surrogates[0]) & (bounds[:-1] < surrogates[1])] = False
    members, class_of = np.unique(inside, axis=1, return_inverse=True)
    return np.repeat(class_of.ravel().astype(np.int32), np.diff(bounds)), members


def _determinise(nfa: _Nfa, end: int, members: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The subset construction, from state 0 of the automaton."""
    classes_of = [np.flatnonzero(row).tolist() for row in members]
    start = nfa.closure([0])
    numbers, waiting = {start: 0}, [start]
    rows: list[NDArray[np.int32]] = []
    for subset in waiting:  # grows as it goes
        targets: dict[int, set[int]] = {}
        for number, target in (step for state in subset for step in nfa.steps[state]):
            for each in classes_of[number]:
                targets.setdefault(each, set()).add(target)
        row = np.full(members.shape[1], ILLEGAL, dtype=np.int32)
        closures: dict[frozenset[int], int] = {}
        for each, reached in targets.items():
            key = frozenset(reached)
            if key not in closures:
                following = nfa.closure(key)
                if following not in numbers:
                    numbers[following] = len(numbers)
                    waiting.append(following)
                closures[key] = numbers[following]
            row[each] = closures[key]
        rows.append(row)
        if len(numbers) > MAX_STATES:
            raise too_large(nfa.expression)
    return np.stack(rows), np.array([end in subset for subset in waiting])


def _alive(transitions: NDArray[np.int32], accepting: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The states from which an accepting one can be reached."""
    before: list[list[int]] = [[] for _ in transitions]
    for state, row in enumerate(transitions):
        for target in np.unique(row[row != ILLEGAL]).tolist():
            before[target].append(state)
    alive = accepting.copy()
    waiting = np.flatnonzero(alive).tolist()
    while waiting:
        for state in before[waiting.pop()]:
            if not alive[state]:
                alive[state] = True
                waiting.append(state)
    return alive

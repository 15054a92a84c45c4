"""The longest suffix of a growing sequence that has occurred in it before."""

from collections.abc import Iterable

_WALK = 32


class SuffixAutomaton:
    """All substrings of a sequence, on line (Blumer et al. 1985), with a place where each has ended.

    The place is the last one, but for substrings of very repetitive text: after each symbol, the places of its 32
    longest suffix classes are brought up to date, so that a symbol costs amortised constant time.

    Args:
        symbols: what the sequence begins with.
    """

    def __init__(self, symbols: Iterable[int] = ()) -> None:
        self._symbols: list[int] = []
        self._next: list[dict[int, int]] = [{}]
        self._link, self._length, self._end = [-1], [0], [-1]
        self._last = self._suffix = self._after = 0
        self.extend(symbols)

    def __len__(self) -> int:
        return len(self._symbols)

    def copy(self) -> "SuffixAutomaton":
        """An automaton that grows on its own."""
        other = SuffixAutomaton()
        other._symbols, other._last = self._symbols.copy(), self._last
        other._suffix, other._after = self._suffix, self._after
        other._next = [edges.copy() for edges in self._next]
        other._link, other._length, other._end = self._link.copy(), self._length.copy(), self._end.copy()
        return other

    def extend(self, symbols: Iterable[int]) -> None:
        """Append symbols."""
        for symbol in symbols:
            self._append(symbol)

    def continuation(self, min_match: int, most: int) -> list[int]:
        """What followed the longest suffix that ended before, where it last did; empty if it is too short.

        Args:
            min_match: symbols that the suffix must have, at least.
            most: symbols to return, at most.
        """
        if self._suffix < max(1, min_match):
            return []
        found = self._symbols[self._after : self._after + most]
        while len(found) < most:  # the match reaches to the end of the sequence: its period goes on
            found += self._symbols[self._after :][: most - len(found)]
        return found

    def _append(self, symbol: int) -> None:
        self._symbols.append(symbol)
        new = self._add({}, self._length[self._last] + 1, len(self._symbols) - 1)
        state = self._last
        while state != -1 and symbol not in self._next[state]:
            self._next[state][symbol] = new
            state = self._link[state]
        if state == -1:
            self._link[new] = 0
        else:
            self._link[new] = self._split(state, symbol)
        self._last = new
        # The suffix link of the whole sequence is its longest suffix that ends at more than one place.
        state = self._link[new]
        self._suffix, self._after = self._length[state], self._end[state] + 1
        for _ in range(_WALK):
            if state <= 0:
                break
            self._end[state] = len(self._symbols) - 1
            state = self._link[state]

    def _split(self, state: int, symbol: int) -> int:
        """The state of the string of ``state`` and ``symbol`` alone, cut out of a longer one where need be."""
        target = self._next[state][symbol]
        if self._length[state] + 1 == self._length[target]:
            return target
        clone = self._add(self._next[target].copy(), self._length[state] + 1, self._end[target])
        self._link[clone], self._link[target] = self._link[target], clone
        while state != -1 and self._next[state].get(symbol) == target:
            self._next[state][symbol] = clone
            state = self._link[state]
        return clone

    def _add(self, edges: dict[int, int], length: int, end: int) -> int:
        self._next.append(edges)
        self._length.append(length)
        self._end.append(end)
        self._link.append(-1)
        return len(self._next) - 1

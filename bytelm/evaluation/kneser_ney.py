"""Character n-gram models of large texts: modified Kneser-Ney smoothing on sorted arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytelm.errors import ConfigError
from bytelm.evaluation.character_ngram import NUM_SCALARS

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_LIMIT = 0x110000
_FEW = (0.5, 1.0, 1.5)
"""Discounts where there are too few n-grams to estimate them."""


@dataclass(frozen=True)
class _Level:
    """All n-grams of one length.

    Attributes:
        keys: of the n-grams, sorted: the place of its history among the shorter ones, times the symbols, plus the last.
        counts: of each.
        discounts: of counts 1, 2, and 3 or more, at these places; 0 of count 0.
        totals: counts of all n-grams of a history, by its number.
        left: the share of a history's law that its shorter history has.
    """

    keys: _Ints
    counts: _Ints
    discounts: _Floats
    totals: _Ints
    left: _Floats


class KneserNey:
    """An interpolated character n-gram model with modified Kneser-Ney smoothing (Chen and Goodman 1999, section 3).

    The longest n-grams count how often they come, shorter ones before how many different characters; below order 1 is
    the uniform law over all Unicode scalar values. Texts begin with a symbol of their own, which is not predicted.

    Args:
        order: 5 for characters after four others.
    """

    def __init__(self, order: int) -> None:
        if order < 1:
            raise ConfigError(f"order: found {order}, expected at least 1")
        self.order = order

    def fit(self, texts: Iterable[str]) -> "KneserNey":
        """Count the characters of ``texts``: about 50 bytes of memory for each character, while it lasts."""
        texts = list(texts)
        points = [_code_points(text) for text in texts]
        seen = np.zeros(_LIMIT, bool)
        for point in points:
            seen[point] = True
        self._symbol = np.where(seen, np.cumsum(seen), 0)  # 0: the beginning of a text, and what was not seen
        self._symbols = int(seen.sum()) + 1
        symbols, begins = self._read(points)
        self._levels = self._count(symbols, begins)
        return self

    def bits_per_char(self, texts: Sequence[str]) -> float:
        """Bits per character over all texts; the ends of texts are not scored."""
        symbols, begins = self._read([_code_points(text) for text in texts])
        probabilities = self._probabilities(symbols, begins)
        return float(-np.log2(probabilities[~begins]).sum() / (~begins).sum())

    def _read(self, points: Sequence[NDArray[np.uint32]]) -> tuple[_Ints, NDArray[np.bool_]]:
        """Symbols of all texts in one array, with one that is the beginning before each, and where those are."""
        begin, pieces = np.zeros(1, np.int64), list[_Ints]()
        for point in points:
            pieces += [begin, self._symbol[point]]
        sizes = np.array([1 + len(point) for point in points])
        begins = np.zeros(sizes.sum(), bool)
        begins[np.cumsum(sizes) - sizes] = True
        return np.concatenate(pieces), begins

    def _count(self, symbols: _Ints, begins: NDArray[np.bool_]) -> list[_Level]:
        levels, histories, num_histories = list[_Level](), np.zeros(len(symbols), np.int64), 1
        shorter = counts = keys = np.zeros(0, np.int64)
        for n in range(self.order):
            longer, first, numbers, times = np.unique(
                histories * self._symbols + symbols, return_index=True, return_inverse=True, return_counts=True
            )
            if n > 0:  # each shorter n-gram counts the longer ones that end with it
                counts = np.bincount(shorter[first], minlength=len(keys))
                levels.append(_level(keys, counts, self._symbols, num_histories))
                num_histories = len(keys)
            keys, counts, shorter, histories = longer, times, numbers, _histories(numbers, begins)
        return [*levels, _level(keys, counts, self._symbols, num_histories)]

    def _probabilities(self, symbols: _Ints, begins: NDArray[np.bool_]) -> _Floats:
        p = np.full(len(symbols), 1 / NUM_SCALARS)
        histories = np.zeros(len(symbols), np.int64)
        known = (symbols > 0) | begins
        for level in self._levels:
            numbers = np.where(known, _find(level.keys, histories * self._symbols + symbols), -1)
            numbers[histories < 0] = -1
            counts = np.where(numbers >= 0, level.counts[numbers], 0)
            totals = np.where(histories >= 0, level.totals[histories], 0)
            seen = totals > 0
            kept = (counts - level.discounts[np.minimum(counts, 3)])[seen] / totals[seen]
            p[seen] = kept + level.left[histories[seen]] * p[seen]
            histories = _histories(numbers, begins)
        return p


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _histories(numbers: _Ints, begins: NDArray[np.bool_]) -> _Ints:
    """The n-gram before each place; before the beginning of a text, that of the beginning itself."""
    before = np.concatenate((numbers[:1], numbers[:-1]))
    return np.where(begins, numbers, before)


def _find(keys: _Ints, wanted: _Ints) -> _Ints:
    """Places of what is wanted among sorted keys; -1 where it is not there."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


def _level(keys: _Ints, counts: _Ints, symbols: int, num_histories: int) -> _Level:
    """Totals and discounts; the beginning of a text is no character that follows a history."""
    counts = np.where(keys % symbols == 0, 0, counts)
    histories = keys // symbols
    discounts = _discounts(counts)
    totals = np.bincount(histories, counts, num_histories).astype(np.int64)
    taken = np.bincount(histories, discounts[np.minimum(counts, 3)], num_histories)
    return _Level(keys, counts, discounts, totals, taken / np.maximum(totals, 1))


def _discounts(counts: _Ints) -> _Floats:
    """By equation 26: of counts 0, 1, 2, and 3 or more."""
    n = [int((counts == k).sum()) for k in range(1, 5)]
    if 0 in n:
        return np.array([0.0, *_FEW])
    y = n[0] / (n[0] + 2 * n[1])
    return np.array([0.0, *(np.clip(k - (k + 1) * y * n[k] / n[k - 1], 0.0, k) for k in (1, 2, 3))])

"""Counts of characters and of neighbouring pairs, and counts of several groups brought to one weight."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.convert import NUM_CODE_POINTS, code_points_of
from bytelm.errors import EncodingError

GROUP_WEIGHT: Final = 10**12
"""The total to which the counts of each group are scaled where groups weigh the same."""

_BATCH = 1 << 20  # characters counted at a time: a histogram over all code points costs the same for one as for many
_SHIFT: Final = 21  # bits of a code point


@final
@dataclass(frozen=True, slots=True)
class PairCounts:
    """How often one character directly follows another.

    Attributes:
        keys: int64[n], strictly increasing: the left code point times 2^21, plus the right one.
        counts: int64[n].
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls) -> "PairCounts":
        """No pair at all."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    @classmethod
    def of(cls, code_points: NDArray[np.uint32], breaks: Sequence[int] = ()) -> "PairCounts":
        """The pairs in one run of characters; none reaches across an index in ``breaks``, where a new text begins."""
        wide = code_points.astype(np.int64)
        keys = wide[:-1] << _SHIFT | wide[1:]
        if len(breaks):
            inner = np.asarray(breaks, dtype=np.int64)
            keys = np.delete(keys, inner[(inner > 0) & (inner < len(wide))] - 1)
        found, counts = np.unique(keys, return_counts=True)
        return cls(found, counts.astype(np.int64))

    @property
    def left(self) -> NDArray[np.int64]:
        """int64[n], code points."""
        return self.keys >> _SHIFT

    @property
    def right(self) -> NDArray[np.int64]:
        """int64[n], code points."""
        return self.keys & ((1 << _SHIFT) - 1)

    @classmethod
    def sum(cls, parts: Sequence["PairCounts"]) -> "PairCounts":
        """The counts of all parts together."""
        keys, where = np.unique(np.concatenate([np.empty(0, np.int64), *(p.keys for p in parts)]), return_inverse=True)
        counts = np.zeros(len(keys), dtype=np.int64)
        np.add.at(counts, where, np.concatenate([np.empty(0, np.int64), *(p.counts for p in parts)]))
        return cls(keys, counts)


def count_characters(texts: Iterable[str]) -> NDArray[np.int64]:
    """How often each code point occurs: int64[0x110000]. Streams: memory does not grow with the input.

    Raises:
        EncodingError: a lone surrogate, by the number of its text (from 0) and its index in it.
    """
    counts = np.zeros(NUM_CODE_POINTS, dtype=np.int64)
    batch: list[NDArray[np.uint32]] = []
    size = 0
    for number, text in enumerate(texts):
        for start in range(0, len(text), _BATCH):
            batch.append(_code_points(text, start, start + _BATCH, number))
            size += len(batch[-1])
            if size >= _BATCH:
                counts += np.bincount(np.concatenate(batch), minlength=NUM_CODE_POINTS)
                batch, size = [], 0
    if batch:
        counts += np.bincount(np.concatenate(batch), minlength=NUM_CODE_POINTS)
    return counts


def count_pairs(texts: Iterable[str]) -> PairCounts:
    """How often each character directly follows each other one within a text.

    Streams: memory grows with the number of different pairs, not with the input.

    Raises:
        EncodingError: a lone surrogate, by the number of its text (from 0) and its index in it.
    """
    total = PairCounts.empty()
    parts: list[NDArray[np.uint32]] = []
    breaks: list[int] = []
    size = 0
    for number, text in enumerate(texts):
        for start in range(0, len(text), _BATCH):
            first = max(start - 1, 0)  # a part begins with the last character of the one before
            breaks.append(size)
            parts.append(_code_points(text, first, start + _BATCH, number))
            size += len(parts[-1])
            if size >= _BATCH:
                total = PairCounts.sum([total, PairCounts.of(np.concatenate(parts), breaks)])
                parts, breaks, size = [], [], 0
    return PairCounts.sum([total, PairCounts.of(np.concatenate(parts), breaks)]) if parts else total


def _code_points(text: str, start: int, stop: int, number: int) -> NDArray[np.uint32]:
    try:
        return code_points_of(text[start:stop], start)
    except EncodingError as error:
        raise EncodingError(f"text {number}: {error}") from None


def count_table(counts: Mapping[str, int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts of characters in either form as int64[0x110000].

    Raises:
        EncodingError: an array of another shape, a negative count, a count of a surrogate, a key that is not a single
            character.
    """
    if not isinstance(counts, Mapping):
        if counts.shape != (NUM_CODE_POINTS,) or counts.min() < 0 or counts[0xD800:0xE000].any():
            raise EncodingError(
                f"counts: found an array of shape {counts.shape}, expected [{NUM_CODE_POINTS}] counts >= 0, "
                "0 for surrogates"
            )
        return counts
    table = np.zeros(NUM_CODE_POINTS, dtype=np.int64)
    for character, count in counts.items():
        if len(character) != 1 or count < 0:
            raise EncodingError(f"counts: found {character!r}: {count}, expected single characters with counts >= 0")
        table[code_points_of(character)] = count
    return table


def scaled(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """``counts * GROUP_WEIGHT / total``, rounded down in exact integers: equal counts stay equal, order stays.

    Args:
        counts: int64[n], counts >= 0 of one group.
        total: all characters of the group, 1 to ``GROUP_WEIGHT``, so that no count above 0 becomes 0.

    Raises:
        EncodingError: another total.
    """
    if not 1 <= total <= GROUP_WEIGHT:
        raise EncodingError(f"counts of a group: found {total:,} characters, expected 1 to {GROUP_WEIGHT:,}")
    result = np.zeros_like(counts)
    seen = np.flatnonzero(counts)
    result[seen] = [count * GROUP_WEIGHT // total for count in counts[seen].tolist()]
    return result


def balance(groups: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The sum of the counts of groups that weigh the same, however much text each has: int64[0x110000].

    Raises:
        EncodingError: a group without a character.
    """
    result = np.zeros(NUM_CODE_POINTS, dtype=np.int64)
    for counts in groups:
        result += scaled(counts, int(counts.sum()))
    return result


def balance_pairs(groups: Sequence[PairCounts], totals: Sequence[int]) -> PairCounts:
    """The sum of the pairs of groups that weigh the same; ``totals`` are the characters of each.

    Raises:
        EncodingError: a group without a character.
    """
    return PairCounts.sum(
        [PairCounts(pairs.keys, scaled(pairs.counts, total)) for pairs, total in zip(groups, totals, strict=True)]
    )

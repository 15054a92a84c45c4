"""(s,c)-dense codes (Brisaboa, Fariña, Navarro, Esteller: (S,C)-Dense Coding, SPIRE 2003)."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.base import INVALID, Encoding, control_names
from bytelm.encoding.convert import NUM_CODE_POINTS, NUM_WORDS, ByteData, as_bytes
from bytelm.encoding.ranking import lines_of, rank_values
from bytelm.errors import EncodingError

_LONGEST: Final = 4


def tier_ends(s: int, c: int) -> list[int]:
    """Number of ranks whose word has at most 1, 2, 3, 4 bytes: s, s + s*c, s + s*c + s*c^2, …"""
    ends = [s]
    for _ in range(_LONGEST - 1):
        ends.append(s + c * ends[-1])
    return ends


class DenseEncoding(Encoding):
    """An (s,c)-dense code: byte values 0..s-1 are stoppers, s..s+c-1 continuers, the rest controls.

    A word is some continuers and one stopper. The characters are ranked (``ranked`` first, then all other scalar values
    in their order, then the 128 escaped bytes); the first s ranks have one byte, the next s*c two, and so on. Inside a
    tier the stopper is the low digit, so ranks that follow each other share their lead byte.

    A malformed piece is a word that stands for nothing, or continuers that no stopper follows: a run of continuers that
    is longer than ``max_word - 1`` is cut into pieces of that length from its beginning, and what is left of
    it joins the stopper that follows.

    Args:
        name: the name in the registry.
        s: number of stoppers.
        c: number of continuers; s + c + num_controls = 256.
        ranked: distinct characters, the most frequent first.
        num_controls: number of controls, of one byte each.

    Raises:
        EncodingError: s, c and num_controls do not fit, or ``ranked`` holds a character twice or a lone surrogate.
    """

    family = "dense"

    def __init__(self, name: str, s: int, c: int, ranked: str, num_controls: int = 8) -> None:
        text_bytes = 256 - len(control_names(num_controls))
        if s < 1 or c < 0 or s + c != text_bytes:
            raise EncodingError(f"{name}: found s = {s}, c = {c}, expected s >= 1, c >= 0 and s + c = {text_bytes}")
        if tier_ends(s, c)[-1] < NUM_WORDS:
            raise EncodingError(
                f"{name}: s = {s}, c = {c} give {tier_ends(s, c)[-1]:,} words of up to {_LONGEST} bytes, "
                f"expected at least {NUM_WORDS:,}"
            )
        self.s, self.c, self.ranked = s, c, ranked
        values = rank_values(name, ranked)
        words = np.zeros(NUM_CODE_POINTS, dtype=np.uint32)
        lengths = np.zeros(NUM_CODE_POINTS, dtype=np.uint8)
        words[values], lengths[values] = _words(s, c)
        super().__init__(name, 1, words, lengths, [bytes([byte]) for byte in range(text_bytes, 256)])
        self._value_of_rank = values.astype(np.int32)

    def _parameters(self) -> dict[str, Any]:
        return {"s": self.s, "c": self.c, "ranked": lines_of(self.ranked)}

    def parse(self, data: ByteData) -> tuple[NDArray[np.int32], NDArray[np.int64]]:  # noqa: D102 - inherited
        array = as_bytes(data)
        if len(array) == 0:
            return np.empty(0, np.int32), np.empty(0, np.int64)
        continuer = (array >= self.s) & (array < self.s + self.c)
        starts = np.flatnonzero(self._start_mask(array, continuer))
        lasts = np.append(starts[1:], len(array)) - 1
        leading = lasts - starts  # bytes before the last one: continuers, all of them

        high = np.zeros(len(starts), dtype=np.int64)
        for k in range(self.max_word - 1):
            longer = np.flatnonzero(leading > k)
            high[longer] = high[longer] * self.c + array[starts[longer] + k] - self.s
        first_rank = np.array([0, *tier_ends(self.s, self.c)[:-1]])
        last = array[lasts]
        rank = first_rank[leading] + high * self.s + last
        known = (last < self.s) & (rank < NUM_WORDS)
        values = np.where(known, self._value_of_rank[np.where(known, rank, 0)], np.int32(INVALID))
        control = last >= self.s + self.c
        values[control] = self.s + self.c - 1 - last[control].astype(np.int32)
        return values, starts.astype(np.int64, copy=False)

    def _start_mask(self, array: NDArray[np.uint8], continuer: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool[n]: a piece begins after every stopper and control, at every control, and inside overlong runs."""
        mask = np.ones(len(array), dtype=np.bool_)
        mask[1:] = ~continuer[:-1] | (array[1:] >= self.s + self.c)
        longest = self.max_word - 1
        overlong = continuer[longest:].copy()
        for k in range(longest):
            overlong &= continuer[k : len(array) - longest + k] if len(array) > longest else False
        if overlong.any():
            offset = np.arange(len(array))
            run_start = np.maximum.accumulate(np.where(continuer, -1, offset)) + 1
            mask |= continuer & ((offset - run_start) % longest == 0)
        return mask

    def _unfinished(self, data: NDArray[np.uint8]) -> int:
        tail = data[1 - self.max_word :]
        others = np.flatnonzero((tail < self.s) | (tail >= self.s + self.c))
        if len(others):
            return len(tail) - int(others[-1]) - 1
        others = np.flatnonzero((data < self.s) | (data >= self.s + self.c))
        run = len(data) - (int(others[-1]) + 1 if len(others) else 0)
        return (run - 1) % (self.max_word - 1) + 1 if run else 0


def _words(s: int, c: int) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Code words (left-aligned) and lengths by rank, for all 1,112,192 ranks."""
    ends = tier_ends(s, c)
    ranks = np.arange(NUM_WORDS)
    tier = np.searchsorted(ends, ranks, side="right")  # continuers in the word
    rest = ranks - np.array([0, *ends[:-1]])[tier]
    words = rest % s
    rest //= s
    for k in range(_LONGEST - 1):
        more = tier > k
        words[more] |= (s + rest[more] % c) << (8 * (k + 1))
        rest //= c
    words <<= 8 * (_LONGEST - 1 - tier)
    return words.astype(np.uint32), (tier + 1).astype(np.uint8)

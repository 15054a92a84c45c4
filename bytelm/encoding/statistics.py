"""How good a code is for text: against the optimal byte code and against the entropy."""

import heapq
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.base import Encoding
from bytelm.errors import EncodingError


@final
@dataclass(frozen=True, slots=True)
class CodeStatistics:
    """What a code makes of characters with given counts; all lengths in bytes per character.

    Attributes:
        bytes_per_character: the mean length of a code word.
        shares: the part of all characters of the text whose word has 1, 2, 3 and 4 bytes; adds up to 1.
        huffman: the mean length of the optimal prefix code over as many byte values as the code has for text; it gives
            words to the characters that occur and to no others, so a code for all of Unicode cannot reach it.
        entropy: the entropy of a single character, in bits, over 8.
    """

    bytes_per_character: float
    shares: tuple[float, float, float, float]
    huffman: float
    entropy: float

    @property
    def huffman_gap(self) -> float:
        """How much longer the code is than ``huffman``: 0.03 is 3 %."""
        return self.bytes_per_character / self.huffman - 1

    @property
    def entropy_gap(self) -> float:
        """How much longer the code is than ``entropy``: 0.03 is 3 %; infinite for text of one character."""
        return self.bytes_per_character / self.entropy - 1 if self.entropy else float("inf")


def code_statistics(encoding: Encoding, counts: NDArray[np.int64]) -> CodeStatistics:
    """The statistics of ``encoding`` on characters counted by ``count_characters``.

    Raises:
        EncodingError: nothing was counted.
    """
    seen = np.flatnonzero(counts)
    if not len(seen):
        raise EncodingError(f"{encoding.name}: found no characters to measure on, expected at least one")
    total = int(counts.sum())
    lengths = encoding.lengths[seen]
    one, two, three, four = (int(counts[seen][lengths == length].sum()) / total for length in (1, 2, 3, 4))
    p = counts[seen] / total
    return CodeStatistics(
        bytes_per_character=encoding.bytes_per_character(counts),
        shares=(one, two, three, four),
        huffman=huffman_length(counts[seen].tolist(), 256 - len(encoding.controls)) / total,
        entropy=max(0.0, -float(p @ np.log2(p))) / 8,
    )


def huffman_length(counts: list[int], arity: int) -> int:
    """The total length of a text in the optimal prefix code over ``arity`` symbols (Huffman 1952).

    The code over bytes instead of bits is that of Moura, Navarro, Ziviani and Baeza-Yates, "Fast and flexible word
    searching on compressed text" (2000). Where the last merge would lack symbols, counts of zero fill the first one.
    A single character still takes one symbol.

    Args:
        counts: how often each character occurs, at least one character.
        arity: symbols of the code, at least 2.
    """
    if len(counts) == 1:
        return counts[0]
    heap = sorted(counts + [0] * (-(len(counts) - 1) % (arity - 1)))  # a sorted list is a heap
    length = 0
    while len(heap) > 1:
        merged = sum(heapq.heappop(heap) for _ in range(arity))
        length += merged  # every character below the merged node gets one symbol longer
        heapq.heappush(heap, merged)
    return length

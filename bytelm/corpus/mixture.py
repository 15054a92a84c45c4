"""Windows of several corpora in stated shares, a function of position alone."""

from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from typing import final

import numpy as np
from numpy.typing import NDArray

from bytelm.corpus.windows import CoveringWindows, Windows
from bytelm.errors import CorpusError


@final
class Shares:
    """Which of several streams each position belongs to, and which of its items is there, by exact shares.

    The first stream has position t where ``floor((t + 1) r) > floor(t r)`` for its share r (a Beatty sequence), the
    other streams divide the rest among themselves in the same way. So every stream has its items in order and each
    once, it is never ahead of or behind its share of the positions so far by as many items as there are streams, and by
    none at multiples of :attr:`period`. Nothing is held in memory or drawn at random.

    Args:
        weights: a number above 0 for each stream. Decimal fractions are meant as they are written: 0.1 is a tenth.
    Raises:
        CorpusError: no weight, or one that is no number above 0.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        for index, weight in enumerate(weights):
            if not 0 < weight < float("inf"):
                raise CorpusError(f"weight {index}: found {weight}, expected a number above 0")
        if not weights:
            raise CorpusError("weights: found none, expected at least one")
        exact = [Fraction(str(weight)) for weight in weights]
        scale = lcm(*(weight.denominator for weight in exact))
        total = sum(exact)
        self.shares = [weight / total for weight in exact]
        self.period = lcm(*(share.denominator for share in self.shares))
        self._parts = [int(weight * scale) for weight in exact]
        self._rests = [sum(self._parts[index:]) for index in range(len(weights))]

    def locate(self, position: int) -> tuple[int, int]:
        """The stream that has ``position``, and the number of its item there."""
        for stream, (part, rest) in enumerate(zip(self._parts, self._rests, strict=True)):
            before = position * part // rest
            if (position + 1) * part // rest > before:
                return stream, before
            position -= before
        raise AssertionError("the last stream takes all that is left")

    def counts(self, positions: int) -> list[int]:
        """How many of the first ``positions`` each stream has."""
        counts = []
        for part, rest in zip(self._parts, self._rests, strict=True):
            counts.append(positions * part // rest)
            positions -= counts[-1]
        return counts


@final
class MixedWindows(Windows):
    """``size`` windows of several corpora from position ``start`` on, in shares of the weights.

    Window i is a function of ``seed`` and ``start`` + i alone. Those of a corpus are its :class:`CoveringWindows`, each
    once until all were used.

    Args:
        corpora: the windows of each corpus, with its weight.
        start: position of the first window.
        size: how many.
    Raises:
        CorpusError: no corpus, corpora of different encodings, windows of different lengths, a weight that is no number
            above 0, a negative start or size.
    """

    def __init__(self, corpora: Sequence[tuple[CoveringWindows, float]], *, start: int = 0, size: int) -> None:
        self.shares = Shares([weight for _, weight in corpora])
        self.corpora = [windows for windows, _ in corpora]
        first = self.corpora[0]
        self.length, self.start, self._size = first.length, start, size
        for windows in self.corpora[1:]:
            found, expected = windows.corpus.manifest, first.corpus.manifest
            if found.encoding_digest != expected.encoding_digest:
                raise CorpusError(
                    f"{windows.corpus.folder}: found a corpus of encoding {found.encoding!r}, "
                    f"expected {expected.encoding!r} as in {first.corpus.folder}"
                )
            assert windows.length == self.length
        for name, value in (("start", start), ("size", size)):
            if value < 0:
                raise CorpusError(f"{name}: found {value}, expected 0 or more")

    def __len__(self) -> int:
        return self._size

    def _window(self, index: int) -> NDArray[np.uint8]:
        corpus, item = self.shares.locate(self.start + index)
        return self.corpora[corpus].window(item)

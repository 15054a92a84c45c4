"""Windows of a corpus, for training (random) and for validation (one after another)."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import final, overload

import numpy as np
from numpy.typing import NDArray

from bytelm.corpus.corpus import Corpus
from bytelm.errors import CorpusError

TARGET_BYTES = 4
"""The last bytes of a window that a model of patches of four only predicts; consecutive windows overlap by them."""


class Windows(Sequence[NDArray[np.uint8]]):
    """``uint8`` windows (length,) of a corpus, read when they are asked for. An abstract base."""

    corpus: Corpus
    length: int

    @abstractmethod
    def offset(self, index: int) -> int:
        """The byte of the corpus at which window ``index`` (0 to ``len(self) - 1``) begins."""

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.uint8]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Window ``index``, or the list of those in a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"found window {index}, expected one of {len(self)}")
        start = self.offset(index % len(self))
        return self.corpus.read(start, start + self.length)

    def _check_length(self, shortest: int) -> None:
        if self.length < shortest:
            raise CorpusError(f"found windows of {self.length} bytes, expected at least {shortest}")
        if self.corpus.num_bytes < self.length:
            raise CorpusError(
                f"{self.corpus.folder}: found a corpus of {self.corpus.num_bytes} bytes, "
                f"expected at least one window of {self.length}"
            )


@final
class RandomWindows(Windows):
    """``size`` windows, each at an offset drawn uniformly from all offsets at which a window fits.

    Window i is a function of (``seed``, ``epoch``, i) alone: of a Philox counter-based generator (Salmon et al. 2011)
    keyed by seed and epoch, the word at counter i. It is the same in every process and does not depend on ``size``.

    Raises:
        CorpusError: the corpus is shorter than a window; a seed or epoch outside of 0 to 2^64 - 1, or a
            negative size.
    """

    def __init__(self, corpus: Corpus, length: int, *, seed: int, epoch: int = 0, size: int) -> None:
        self.corpus = corpus
        self.length = length
        self.seed = seed
        self.epoch = epoch
        self._size = size
        self._check_length(shortest=1)
        if size < 0:
            raise CorpusError(f"size: found {size}, expected 0 or more")
        for name, value in (("seed", seed), ("epoch", epoch)):
            if not 0 <= value < 1 << 64:
                raise CorpusError(f"{name}: found {value}, expected 0 to 2^64 - 1")

    def __len__(self) -> int:
        return self._size

    def at_epoch(self, epoch: int) -> "RandomWindows":
        """The windows of another epoch."""
        return RandomWindows(self.corpus, self.length, seed=self.seed, epoch=epoch, size=self._size)

    def offset(self, index: int) -> int:
        """The byte of the corpus at which window ``index`` begins."""
        key = np.array([self.seed, self.epoch], dtype=np.uint64)
        counter = np.array([0, index, 0, 0], dtype=np.uint64)
        word = int(np.random.Philox(key=key, counter=counter).random_raw())
        # the high half of a 128-bit product: no offset is likelier than another by more than 2^-64
        return word * (self.corpus.num_bytes - self.length + 1) >> 64


@final
class ContiguousWindows(Windows):
    """Consecutive windows that begin ``length - targets`` bytes apart, so that each byte is predicted once.

    The last ``targets`` bytes of a window, a patch of the model, are only targets, and the first bytes of the next.
    What is left at the end of the corpus and is shorter than a window is dropped.

    Raises:
        CorpusError: the corpus is shorter than a window, or a window has no more than ``targets`` bytes.
    """

    def __init__(self, corpus: Corpus, length: int, targets: int = TARGET_BYTES) -> None:
        self.corpus = corpus
        self.length = length
        self.targets = targets
        self._check_length(shortest=targets + 1)

    def __len__(self) -> int:
        return (self.corpus.num_bytes - self.length) // (self.length - self.targets) + 1

    def offset(self, index: int) -> int:
        """The byte of the corpus at which window ``index`` begins."""
        return index * (self.length - self.targets)

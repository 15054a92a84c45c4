"""Windows of a corpus, for training (random) and for validation (one after another)."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import final, overload

import numpy as np
from numpy.typing import NDArray

from bytelm.corpus.corpus import Corpus
from bytelm.corpus.permutation import Permutation
from bytelm.errors import CorpusError

TARGET_BYTES = 4
"""The last bytes of a window that a model of patches of four only predicts; consecutive windows overlap by them."""


class Windows(Sequence[NDArray[np.uint8]]):
    """``uint8`` windows (length,), read when they are asked for. An abstract base."""

    length: int

    @abstractmethod
    def _window(self, index: int) -> NDArray[np.uint8]:
        """Window ``index``, from 0 to ``len(self) - 1``."""

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
        return self._window(index % len(self))


class CorpusWindows(Windows):
    """Windows of one corpus, each known by where it begins. An abstract base."""

    corpus: Corpus

    @abstractmethod
    def offset(self, index: int) -> int:
        """The byte of the corpus at which window ``index`` begins."""

    def _window(self, index: int) -> NDArray[np.uint8]:
        start = self.offset(index)
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
class RandomWindows(CorpusWindows):
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
        _check_word("seed", seed)
        _check_word("epoch", epoch)

    def __len__(self) -> int:
        return self._size

    def at_epoch(self, epoch: int) -> "RandomWindows":
        """The windows of another epoch."""
        return RandomWindows(self.corpus, self.length, seed=self.seed, epoch=epoch, size=self._size)

    def offset(self, index: int) -> int:
        """The byte of the corpus at which window ``index`` begins."""
        return _draw(self.seed, self.epoch, index, self.corpus.num_bytes - self.length + 1)


@final
class CoveringWindows(CorpusWindows):
    """Windows in random order that cover the corpus once before any part of it comes again, for ever.

    An epoch divides the corpus, from a random byte on, into slots of ``length - 1`` bytes, and takes them in the order
    of a :class:`~bytelm.corpus.permutation.Permutation`. The window of a slot begins at one of its first P bytes, at
    random, so that all phases are learned, and reads ``length - P`` bytes inside of the slot; its last P bytes are only
    targets. So no byte is read twice in an epoch, and those left out (less than P between windows, less than two slots
    at the ends of the corpus) are others in each epoch. Window i is a function of (``seed``, ``stream``, i) alone.

    Args:
        corpus: where the windows are.
        length: bytes of a window.
        seed: of the order, from 0 to 2^64 - 1.
        stream: tells corpora of the same seed apart, from 0 to 2^64 - 1.
        patch: P, bytes at the end of a window that a model only predicts.
    Raises:
        CorpusError: the corpus is shorter than a window, a window has no more than P bytes, a seed or stream outside
            its range.
    """

    def __init__(self, corpus: Corpus, length: int, *, seed: int, stream: int = 0, patch: int = TARGET_BYTES) -> None:
        self.corpus, self.length, self.seed, self.stream, self._patch = corpus, length, seed, stream, patch
        self._check_length(shortest=patch + 1)
        _check_word("seed", seed)
        _check_word("stream", stream)
        self._slot = length - 1
        self._read = corpus.num_bytes - patch
        self._size = max(1, self._read // self._slot - 1)
        self._order = self._ordered(0)

    def __len__(self) -> int:
        """Windows of an epoch; :meth:`window` goes on after them."""
        return self._size

    def window(self, index: int) -> NDArray[np.uint8]:
        """Window ``index``, 0 or more, of the endless sequence."""
        return self._window(index)

    def offset(self, index: int) -> int:
        """The byte of the corpus at which window ``index`` (0 or more) begins."""
        epoch, place = divmod(index, self._size)
        if self._order[0] != epoch:
            self._order = self._ordered(epoch)
        _, begin, order = self._order
        slot = order(place)
        start = begin + slot * self._slot
        room = min(self._patch, self.corpus.num_bytes - self.length - start + 1)
        return start + _draw(self._key(epoch, "phase"), 0, slot, room)

    def _ordered(self, epoch: int) -> tuple[int, int, Permutation]:
        """An epoch, the byte where its first slot begins, and the order of the slots."""
        slack = max(0, self._read - self._size * self._slot)
        begin = _draw(self._key(epoch, "begin"), 0, 0, slack + 1)
        key = f"{self.seed} {self.stream} {epoch} order".encode()
        return epoch, begin, Permutation(self._size, hashlib.blake2b(key).digest())

    def _key(self, epoch: int, use: str) -> int:
        text = f"{self.seed} {self.stream} {epoch} {use}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


@final
class ContiguousWindows(CorpusWindows):
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


def _draw(seed: int, epoch: int, index: int, bound: int) -> int:
    """A number from 0 to ``bound`` - 1: of a Philox generator keyed by ``seed`` and ``epoch``, at counter ``index``."""
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, index, 0, 0], dtype=np.uint64)
    word = int(np.random.Philox(key=key, counter=counter).random_raw())
    # the high half of a 128-bit product: no number is likelier than another by more than 2^-64
    return word * bound >> 64


def _check_word(name: str, value: int) -> None:
    if not 0 <= value < 1 << 64:
        raise CorpusError(f"{name}: found {value}, expected 0 to 2^64 - 1")

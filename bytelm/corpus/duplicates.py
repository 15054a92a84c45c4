"""Documents that equal an earlier one, found by digest in memory that is bounded.

Each part of a build leaves its digests on disk, in sorted runs. :func:`find_repeats` goes through them by one range of
digests after another, so that it holds a few million digests at a time, and one bit for each document.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from bytelm.corpus.selection import DIGEST_BYTES

_RUN_DIGESTS = 1 << 19
_BUCKET_DIGESTS = 1 << 21  # about 200 MB while they are sorted
_WORD = 8


@final
class DigestRuns:
    """Writes the digests of a part's documents: runs of (first digests, sorted; repeats inside of the run).

    A run is two counts n and m, then three rows of n words: upper half of the digest, lower half, number of the
    document in its part; then m numbers of documents that equal an earlier one of the run. Words are uint64.
    """

    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file
        self._digests = bytearray()
        self._numbers: list[int] = []

    def add(self, number: int, digest: bytes) -> None:
        """Take the digest of a document; numbers ascend."""
        self._digests += digest
        self._numbers.append(number)
        if len(self._numbers) == _RUN_DIGESTS:
            self.flush()

    def flush(self) -> None:
        """Write what is held as a run."""
        words = np.frombuffer(self._digests, dtype=">u8").astype(np.uint64).reshape(-1, DIGEST_BYTES // _WORD)
        upper, lower, numbers = words[:, 0], words[:, 1], np.array(self._numbers, dtype=np.uint64)
        order = np.lexsort((lower, upper))
        first = _first_of_equal(upper[order], lower[order])
        kept, repeats = order[first], order[~first]
        self._file.write(np.array([len(kept), len(repeats)], dtype=np.uint64).tobytes())
        for row in (upper[kept], lower[kept], numbers[kept], numbers[repeats]):
            self._file.write(row.tobytes())
        self._digests, self._numbers = bytearray(), []


def find_repeats(parts: Sequence[tuple[Path, int]]) -> list[NDArray[np.uint8]]:
    """The documents of each part that equal an earlier one, of that part or of a part before it.

    Args:
        parts: of each, the file that :class:`DigestRuns` wrote and the number of its documents.
    Returns:
        for each part a bit per document (``np.unpackbits(…, bitorder="little")``).
    """
    repeated = [np.zeros(-(-documents // 8), dtype=np.uint8) for _, documents in parts]
    runs = [run for part, (path, _) in enumerate(parts) for run in _runs_of(path, part, repeated[part])]
    buckets = max(1, -(-sum(run.count for run in runs) // _BUCKET_DIGESTS))
    bounds = np.array([(bucket << 64) // buckets for bucket in range(1, buckets)], dtype=np.uint64)
    cuts = [[0, *np.searchsorted(run.row(0, 0, run.count), bounds).tolist(), run.count] for run in runs]
    for bucket in range(buckets):
        slices = [(run, cut[bucket], cut[bucket + 1]) for run, cut in zip(runs, cuts, strict=True)]
        _mark([(run, start, stop) for run, start, stop in slices if start < stop], repeated)
    return repeated


@final
class _Run:
    """A run of the digests of a part, in a file."""

    def __init__(self, path: Path, part: int, offset: int, count: int) -> None:
        self.path, self.part, self.count, self._offset = path, part, count, offset

    def row(self, index: int, start: int, stop: int) -> NDArray[np.uint64]:
        offset = self._offset + _WORD * (index * self.count + start)
        return np.fromfile(self.path, dtype=np.uint64, count=stop - start, offset=offset)


def _runs_of(path: Path, part: int, repeated: NDArray[np.uint8]) -> list[_Run]:
    """The runs in a file; what repeats inside of them is marked."""
    runs, offset, size = [], 0, path.stat().st_size
    while offset < size:
        count, repeats = np.fromfile(path, dtype=np.uint64, count=2, offset=offset).tolist()
        runs.append(_Run(path, part, offset + 2 * _WORD, count))
        offset += _WORD * (2 + 3 * count)
        _set_bits(repeated, np.fromfile(path, dtype=np.uint64, count=repeats, offset=offset))
        offset += _WORD * repeats
    return runs


def _mark(slices: list[tuple[_Run, int, int]], repeated: list[NDArray[np.uint8]]) -> None:
    """Mark what repeats among the digests of one range. A run has each digest once, and runs come in their order."""
    if not slices:
        return
    upper, lower, numbers = (np.concatenate([run.row(row, *cut) for run, *cut in slices]) for row in range(3))
    parts = np.repeat([run.part for run, *_ in slices], [stop - start for _, start, stop in slices])
    order = np.lexsort((lower, upper))  # stable: equal digests stay in the order of their runs
    repeats = order[~_first_of_equal(upper[order], lower[order])]
    for part in np.unique(parts[repeats]).tolist():
        _set_bits(repeated[part], numbers[repeats[parts[repeats] == part]])


def _first_of_equal(upper: NDArray[np.uint64], lower: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Of sorted digests: whether each differs from the one before it."""
    first = np.ones(len(upper), dtype=np.bool_)
    first[1:] = (upper[1:] != upper[:-1]) | (lower[1:] != lower[:-1])
    return first


def _set_bits(bits: NDArray[np.uint8], numbers: NDArray[np.uint64]) -> None:
    positions = numbers.astype(np.int64)
    np.bitwise_or.at(bits, positions >> 3, (1 << (positions & 7)).astype(np.uint8))

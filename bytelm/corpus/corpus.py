"""A finished corpus, read in parts."""

from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from bytelm.corpus.manifest import MANIFEST_FILE, Manifest
from bytelm.corpus.shards import OpenFiles, check_shards, check_size
from bytelm.encoding import Encoding, encoding_from_dict
from bytelm.errors import CorpusError, EncodingError

_MAX_OPEN = 256  # of about a thousand files that a process may have


@final
class Corpus:
    """The stored stream of a corpus folder as one long ``uint8`` array that is read in parts.

    Made by :meth:`open`. What is asked for is read, nothing is kept: memory does not grow with the corpus. A process
    that receives a pickled corpus opens the shards itself.
    """

    def __init__(self, folder: Path, manifest: Manifest, encoding: Encoding) -> None:
        self.folder = folder
        self.manifest = manifest
        self.encoding = encoding
        self._find_shards()

    def _find_shards(self) -> None:
        """Check the sizes of the shards, and open none."""
        for shard in self.manifest.shards:
            check_size(self.folder / shard.file, shard)
        self._ends = np.cumsum([shard.bytes for shard in self.manifest.shards], dtype=np.int64)
        self._files = OpenFiles(_MAX_OPEN)

    @classmethod
    def open(cls, folder: str | Path, encoding: Encoding | None = None, *, verify: bool = True) -> "Corpus":
        """Open a corpus and check that it is what was built.

        Args:
            folder: what :func:`~bytelm.corpus.build.build_corpus` wrote.
            encoding: the encoding of the model that is to read it; without one, that of the manifest.
            verify: compare the SHA-256 of every shard (about a second per gigabyte). Sizes are always compared.
        Raises:
            CorpusError: no finished corpus, another format version, a shard that is missing, truncated or altered,
                or another encoding; says what was found and expected.
        """
        folder = Path(folder)
        manifest = Manifest.load(folder)
        if encoding is None:
            try:
                encoding = encoding_from_dict(manifest.encoding_table)
            except EncodingError as error:
                raise CorpusError(f"{folder / MANIFEST_FILE}: encoding_table: {error}") from None
        if encoding.digest != manifest.encoding_digest:
            raise CorpusError(
                f"{folder / MANIFEST_FILE}: found a corpus of encoding {manifest.encoding!r} "
                f"(digest {manifest.encoding_digest[:12]}), expected {encoding.name!r} (digest {encoding.digest[:12]})"
            )
        corpus = cls(folder, manifest, encoding)
        if verify:
            corpus.verify()
        return corpus

    def verify(self, progress: Callable[[int], None] = lambda num_bytes: None) -> None:
        """Compare the SHA-256 of every shard with the manifest.

        Args:
            progress: called with the bytes of each shard that agrees.
        Raises:
            CorpusError: a shard was altered; names it, with the digest found and the digest expected.
        """
        check_shards([(self.folder / shard.file, shard) for shard in self.manifest.shards], progress)

    @property
    def num_bytes(self) -> int:
        """Length of the stored stream."""
        return self.manifest.bytes

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """A copy of the bytes ``start`` to ``stop`` (exclusive) of the stream, across shards.

        Raises:
            IndexError: the range does not lie within the stream.
        """
        if not 0 <= start <= stop <= self.num_bytes:
            raise IndexError(f"found the range {start} to {stop}, expected one within 0 to {self.num_bytes}")
        out = np.empty(stop - start, dtype=np.uint8)
        index = int(np.searchsorted(self._ends, start, side="right"))
        filled = 0
        while filled < len(out):
            shard = self.manifest.shards[index]
            begin = start + filled - (int(self._ends[index]) - shard.bytes)
            part = out[filled : filled + shard.bytes - begin]
            self._files.read_into(self.folder / shard.file, begin, part.data)
            filled += len(part)
            index += 1
        return out

    def __getstate__(self) -> tuple[Path, Manifest, Encoding]:
        return self.folder, self.manifest, self.encoding

    def __setstate__(self, state: tuple[Path, Manifest, Encoding]) -> None:
        self.folder, self.manifest, self.encoding = state
        self._find_shards()

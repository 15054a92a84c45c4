"""A finished corpus, memory-mapped."""

import functools
import hashlib
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from bytelm.corpus.manifest import MANIFEST_FILE, Manifest
from bytelm.encoding import Encoding, encoding_from_dict
from bytelm.errors import CorpusError, EncodingError

_HASH_BLOCK_BYTES = 1 << 22
_MAX_MAPS = 256


@final
class Corpus:
    """The stored stream of a corpus folder as one long ``uint8`` array that is read in parts.

    Made by :meth:`open`. Shards are mapped into memory, not read, and mapped again by a process that receives a
    pickled corpus.
    """

    def __init__(self, folder: Path, manifest: Manifest, encoding: Encoding) -> None:
        self.folder = folder
        self.manifest = manifest
        self.encoding = encoding
        self._find_shards()

    def _find_shards(self) -> None:
        """Check the sizes of the shards, and forget every map."""
        for shard in self.manifest.shards:
            path = self.folder / shard.file
            try:
                size = path.stat().st_size
            except OSError as error:
                raise CorpusError(f"{path}: {error.strerror}, expected a shard of {shard.bytes} bytes") from None
            if size != shard.bytes:
                raise CorpusError(f"{path}: found {size} bytes, expected {shard.bytes}")
        self._ends = np.cumsum([shard.bytes for shard in self.manifest.shards], dtype=np.int64)
        # a map holds a file descriptor, of which a process may have a thousand
        self._map = functools.lru_cache(maxsize=_MAX_MAPS)(self._open_map)

    def _open_map(self, index: int) -> NDArray[np.uint8]:
        path = self.folder / self.manifest.shards[index].file
        try:
            return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
        except OSError as error:
            raise CorpusError(f"{path}: {error.strerror or error}") from None

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

    def verify(self) -> None:
        """Compare the SHA-256 of every shard with the manifest.

        Raises:
            CorpusError: a shard was altered; names it, with the digest found and the digest expected.
        """
        for shard in self.manifest.shards:
            path = self.folder / shard.file
            digest = hashlib.sha256()
            try:
                with path.open("rb") as file:
                    while block := file.read(_HASH_BLOCK_BYTES):
                        digest.update(block)
            except OSError as error:
                raise CorpusError(f"{path}: {error.strerror or error}") from None
            if digest.hexdigest() != shard.sha256:
                raise CorpusError(f"{path}: altered: found SHA-256 {digest.hexdigest()}, expected {shard.sha256}")

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
            shard = self._map(index)
            begin = start + filled - (int(self._ends[index]) - len(shard))
            part = shard[begin : begin + len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            index += 1
        return out

    def __getstate__(self) -> tuple[Path, Manifest, Encoding]:
        return self.folder, self.manifest, self.encoding

    def __setstate__(self, state: tuple[Path, Manifest, Encoding]) -> None:
        self.folder, self.manifest, self.encoding = state
        self._find_shards()

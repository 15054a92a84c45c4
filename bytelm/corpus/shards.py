"""The stored stream, cut into files of equal size."""

import hashlib
import io
import os
from pathlib import Path
from types import TracebackType
from typing import NoReturn, final

from bytelm.corpus.manifest import MANIFEST_FILE, Shard
from bytelm.errors import CorpusError

_PARTIAL = ".partial"


def corpus_files(folder: Path) -> list[Path]:
    """The manifest and the shards, finished or not, that a folder holds; the manifest first."""
    shards = [*folder.glob("shard-[0-9]*.bin"), *folder.glob(f"shard-[0-9]*.bin{_PARTIAL}")]
    return [path for path in (folder / MANIFEST_FILE, *sorted(shards)) if path.is_file()]


@final
class ShardWriter:
    """Writes a byte stream as ``shard-00000.bin``, ``shard-00001.bin``, … of ``shard_bytes`` each, the last shorter.

    A shard carries a temporary name until it is whole and on disk. As a context manager it finishes the last shard on
    leaving, or removes the partial one when an exception passes; finished shards stay. The folder is made, and files
    of an earlier corpus in it are removed, when the first byte is written and not before.

    Raises:
        CorpusError: on writing, when the system refuses (such as: disk full); names the shard and what stays.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.folder = folder
        self.shard_bytes = shard_bytes
        self.finished: list[Shard] = []
        self._file: io.FileIO | None = None
        self._size = 0
        self._hash = hashlib.sha256()

    @property
    def num_bytes(self) -> int:
        """Bytes written so far."""
        return sum(shard.bytes for shard in self.finished) + self._size

    @property
    def _path(self) -> Path:
        return self.folder / f"shard-{len(self.finished):05d}.bin"

    @property
    def _partial(self) -> Path:
        return self._path.with_name(self._path.name + _PARTIAL)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self._finish()
        else:
            self._discard()

    def write(self, data: bytes) -> None:
        """Append to the stream."""
        rest = memoryview(data)
        while rest:
            if self._file is None:
                self._begin()
            part = rest[: self.shard_bytes - self._size]
            self._append(part)
            rest = rest[len(part) :]
            if self._size == self.shard_bytes:
                self._finish()

    def _begin(self) -> None:
        try:
            if not self.finished:
                self.folder.mkdir(parents=True, exist_ok=True)
                for old in corpus_files(self.folder):
                    old.unlink()
            self._file = self._partial.open("wb", buffering=0)
        except OSError as error:
            self._fail(error)
        self._size = 0
        self._hash = hashlib.sha256()

    def _append(self, part: memoryview) -> None:
        assert self._file is not None
        self._hash.update(part)
        try:
            while part:
                count = self._file.write(part)
                self._size += count
                part = part[count:]
        except OSError as error:
            self._fail(error)

    def _finish(self) -> None:
        if self._file is None:
            return
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(self._path)
        except OSError as error:
            self._fail(error)
        self.finished.append(Shard(file=self._path.name, bytes=self._size, sha256=self._hash.hexdigest()))
        self._file, self._size = None, 0

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._partial.unlink(missing_ok=True)

    def _fail(self, error: OSError) -> NoReturn:
        path, size = self._path, self._size
        self._discard()
        raise CorpusError(
            f"{path}: {error.strerror or error} after {size} bytes of this shard, which was removed; "
            f"{len(self.finished)} finished shards stay in {self.folder}"
        ) from error

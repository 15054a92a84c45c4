"""The stored stream, cut into files of equal size."""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NoReturn, final

from bytelm.corpus.manifest import MANIFEST_FILE, Shard
from bytelm.errors import CorpusError
from bytelm.places import leads_out

_PARTIAL = ".partial"
_HASH_BLOCK_BYTES = 1 << 22
_MOST_READERS = 8


def corpus_files(folder: Path) -> list[Path]:
    """The manifest and the shards that a folder holds; the manifest first."""
    return [path for path in (folder / MANIFEST_FILE, *sorted(folder.glob("shard-[0-9]*.bin"))) if path.is_file()]


def check_shard(path: Path, shard: Shard) -> None:
    """Compare a file with what is known of it.

    Raises:
        CorpusError: it is missing, of another size or altered; names it, what was found and what was expected.
    """
    check_size(path, shard)
    try:
        found = describe_file(path).sha256
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror or error}") from None
    if found != shard.sha256:
        raise CorpusError(f"{path}: altered: found SHA-256 {found}, expected {shard.sha256}")


def describe_file(path: Path) -> Shard:
    """The size and the SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return Shard(file=path.name, bytes=size, sha256=digest.hexdigest())


def check_size(path: Path, shard: Shard) -> None:
    """Compare the size of a file with what is known of it.

    Raises:
        CorpusError: it is missing, of another size, or a link that leads out of its folder.
    """
    if leads_out(path):
        raise CorpusError(f"{path}: found a link that leads out of the folder, expected a shard in it")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}, expected a shard of {shard.bytes} bytes") from None
    if size != shard.bytes:
        raise CorpusError(f"{path}: found {size} bytes, expected {shard.bytes}")


def check_shards(files: Sequence[tuple[Path, Shard]], progress: Callable[[int], None] = lambda num_bytes: None) -> None:
    """Compare many files with what is known of them, on all processors.

    Args:
        files: and what is known of each.
        progress: called with the bytes of each file that agrees.
    Raises:
        CorpusError: as :func:`check_shard`, of the first that is wrong.
    """
    with ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1)) as pool:
        waiting = [pool.submit(check_shard, path, shard) for path, shard in files]
        try:
            for result, (_, shard) in zip(waiting, files, strict=True):
                result.result()
                progress(shard.bytes)
        except CorpusError:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@final
class OpenFiles:
    """Files that are read at any place, the last used of them kept open.

    Processes that are forked may read through the same one.

    Args:
        most: files open at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[Path, io.FileIO] = {}

    def read_into(self, path: Path, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the bytes from ``offset`` on.

        Raises:
            CorpusError: the file cannot be read, or is shorter.
        """
        try:
            file = self._open.pop(path, None) or path.open("rb", buffering=0)
            self._open[path] = file
            if len(self._open) > self._most:
                self._open.pop(next(iter(self._open))).close()
            while target:
                count = _read_at(file, offset, target)
                if not count:
                    raise CorpusError(f"{path}: found the end at byte {offset}, expected {len(target)} bytes more")
                offset, target = offset + count, target[count:]
        except OSError as error:
            raise CorpusError(f"{path}: {error.strerror or error}") from None

    def __del__(self) -> None:
        for file in self._open.values():
            file.close()


def _read_at(file: io.FileIO, offset: int, target: memoryview) -> int:
    if hasattr(os, "preadv"):  # it leaves alone the position, which forked processes share
        return os.preadv(file.fileno(), [target], offset)
    file.seek(offset)
    return file.readinto(target) or 0


@final
class ShardWriter:
    """Writes a byte stream as ``PREFIX00000.bin``, ``PREFIX00001.bin``, … of ``shard_bytes`` each, the last shorter.

    A shard carries a temporary name until it is whole and on disk. As a context manager it finishes the last shard on
    leaving, or removes the partial one when an exception passes.

    Raises:
        CorpusError: on writing, when the system refuses (such as: disk full); names the shard.
    """

    def __init__(self, folder: Path, prefix: str, shard_bytes: int) -> None:
        self.folder, self.prefix, self.shard_bytes = folder, prefix, shard_bytes
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
        return self.folder / f"{self.prefix}{len(self.finished):05d}.bin"

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
            f"finished parts stay in {self.folder}, and the same command goes on with them"
        ) from error

"""Checkpoints that are whole or not there: written aside, with a SHA-256 that is compared when they are read."""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol

from bytelm.errors import CheckpointError

_HASH_BLOCK_BYTES = 1 << 22
_LAST_SHARD_FILE = "meta.pt"
_NAME = re.compile(r"step-(\d+)\.ckpt")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when it is complete and on the disk, and not before.

    Raises:
        OSError: it cannot be written; what was at ``path`` is still there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _HashedFile:
    """What ``torch.save`` writes to: it hashes on the way, and keeps the error that torch puts one of its own for."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        return written

    def flush(self) -> None:
        self.file.flush()


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes ``X.ckpt.sha256`` and then ``X.ckpt``, so that a checkpoint with a good name is complete and has a digest.

    The digest file is what ``sha256sum --check`` reads. Paths of other file systems than the local one are written as
    Lightning does.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: it cannot be written; what was there before is still there.
        """
        if not _is_local_file_protocol(str(path)):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as file:
                _save(checkpoint, file, _digest_path(target))
        except OSError as error:
            raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, and refuse it where its digest is another.

        Raises:
            CheckpointError: the file was cut or altered after it was written.
        """
        if _is_local_file_protocol(str(path)) and _digest_path(Path(path)).exists():
            verify(Path(path))
        loaded: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only)
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its digest."""
        super().remove_checkpoint(path)
        if _is_local_file_protocol(str(path)):
            _digest_path(Path(path)).unlink(missing_ok=True)


def _save(checkpoint: dict[str, Any], file: IO[bytes], digest_path: Path) -> None:
    hashed = _HashedFile(file)
    try:
        torch.save(checkpoint, hashed)  # type: ignore[arg-type] # it needs no more than write and flush
    except RuntimeError:
        if hashed.error is not None:
            raise hashed.error from None
        raise
    with replacing(digest_path) as line:
        line.write(f"{hashed.sha256.hexdigest()}  {digest_path.name.removesuffix('.sha256')}\n".encode())


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def verify(path: Path) -> None:
    """Compare a checkpoint with the digest beside it.

    A folder of shards, which a sharding strategy writes, has no digest; it is complete when Lightning's ``meta.pt``,
    which is written last, is there.

    Raises:
        CheckpointError: the file or its digest is missing, or the file is not the one that was written.
    """
    if path.is_dir():
        if not (path / _LAST_SHARD_FILE).is_file():
            raise CheckpointError(f"{path}: torn: found no {_LAST_SHARD_FILE}, expected a complete folder of shards")
        return
    digest_path = _digest_path(path)
    try:
        expected = digest_path.read_text(encoding="ascii", errors="replace").split(" ")[0]
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}, expected a checkpoint and its digest") from None
    if digest.hexdigest() != expected:
        raise CheckpointError(
            f"{path}: torn or altered: found SHA-256 {digest.hexdigest()[:16]}…, expected {expected[:16]}…"
        )


def checkpoint_path(folder: Path, step: int) -> Path:
    """The file in ``folder`` for the state after ``step`` optimiser steps."""
    return folder / f"step-{step:08d}.ckpt"


def checkpoint_step(path: Path) -> int:
    """The optimiser steps in the name that :func:`checkpoint_path` gave."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def remove(path: Path) -> None:
    """Remove a checkpoint, file or folder, and its digest."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    _digest_path(path).unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, latest first."""
    paths = [path for path in folder.glob("step-*.ckpt") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=checkpoint_step, reverse=True)


def last_good_checkpoint(folder: Path, refused: Callable[[str], None]) -> Path:
    """The latest checkpoint in a folder that is as it was written.

    Args:
        folder: where :func:`checkpoint_path` put them.
        refused: called with a line for each later one that is not.
    Raises:
        CheckpointError: there is none.
    """
    found = checkpoints(folder)
    reasons = []
    for path in found:
        try:
            verify(path)
        except CheckpointError as error:
            reasons.append(str(error))
        else:
            for reason in reasons:
                refused(f"{reason}; {path.name} before it is used")
            return path
    last = f" (of {len(found)} that are torn or altered, the latest: {reasons[0]})" if found else ""
    raise CheckpointError(f"{folder}: found no good checkpoint{last}, expected one to go on from")

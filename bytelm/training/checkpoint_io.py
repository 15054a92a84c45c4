"""Checkpoints that are whole or not there: written aside, with a SHA-256 that is compared when they are read."""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol

from bytelm.errors import CheckpointError
from bytelm.hub.tensor_files import refusal
from bytelm.places import is_plain_name
from bytelm.training.parallel import in_first_process

_HASH_BLOCK_BYTES = 1 << 22
_NAME = re.compile(r"step-(\d+)\.ckpt")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when it is complete and on the disk, and not before.

    Raises:
        OSError: it cannot be written; what was at ``path`` is still there.
    """
    partial = partial_path(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Where a file or folder is written that is to become ``path``."""
    return path.with_name(f".{path.name}.partial")


def sync_folder(folder: Path) -> None:
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
    Lightning does. Process 0 writes; all processes read the file that it was told to read and found good.
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
        """Read a checkpoint, and refuse it where its digest is another. No code in it is run, whatever is asked for.

        Raises:
            pickle.UnpicklingError: it holds more than tensors and plain values.
            CheckpointError: the file was cut or altered after it was written, or it is a folder of shards.
        """
        good = in_first_process(lambda: _checked(path))
        loaded: dict[str, Any] = super().load_checkpoint(good, map_location, weights_only=True)
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its digest."""
        super().remove_checkpoint(path)
        if _is_local_file_protocol(str(path)):
            _digest_path(Path(path)).unlink(missing_ok=True)


def _checked(path: str | Path) -> str:
    if _is_local_file_protocol(str(path)):
        if Path(path).is_dir():
            raise CheckpointError(f"{path}: found shards, expected a file, or trainer.strategy: sharded to read them")
        if has_digest(Path(path)):
            verify(Path(path))
    return str(path)


def _save(checkpoint: dict[str, Any], file: IO[bytes], digest_path: Path) -> None:
    digest = save_hashed(checkpoint, file)
    with replacing(digest_path) as lines:
        lines.write(f"{digest}  {digest_path.name.removesuffix('.sha256')}\n".encode())


def save_hashed(value: Any, file: IO[bytes]) -> str:
    """``torch.save``; returns the SHA-256 of what was written.

    Raises:
        OSError: it cannot be written.
    """
    hashed = _HashedFile(file)
    try:
        torch.save(value, hashed)  # type: ignore[arg-type] # it needs no more than write and flush
    except RuntimeError:
        if hashed.error is not None:
            raise hashed.error from None
        raise
    return hashed.sha256.hexdigest()


def read_plain(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote, of tensors and plain values; no code in it is run.

    Raises:
        CheckpointError: it cannot be read, or holds more than that.
    """
    try:
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch raises many kinds for a file that is none)
        raise CheckpointError(f"{path}: {refusal(error)}, expected a checkpoint that fit wrote") from None
    return loaded


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def has_digest(path: Path) -> bool:
    """Whether a checkpoint has a digest beside it: it was written by this package."""
    return _digest_path(path).exists()


def write_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Write the digest file of a folder of shards.

    Args:
        folder: the name it is going to have.
        digests: SHA-256 of its files by name.
    """
    with replacing(_digest_path(folder)) as lines:
        for name, digest in sorted(digests.items()):
            lines.write(f"{digest}  {folder.name}/{name}\n".encode())


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def verify(path: Path, part: int = 0, parts: int = 1) -> None:
    """Compare a checkpoint, a file or a folder of shards, with the digests beside it.

    Args:
        path: of the checkpoint.
        part: from this file of a folder on, every ``parts``-th.
        parts: 1 for all.
    Raises:
        CheckpointError: a file or the digests are missing, or a file is not the one that was written.
    """
    try:
        lines = _digest_path(path).read_text(encoding="ascii", errors="replace").splitlines()
        _compare(path, [line.partition("  ")[::2] for line in lines or [""]][part::parts])
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}, expected a checkpoint and its digest") from None


def _compare(path: Path, expected: Iterable[tuple[str, str]]) -> None:
    for digest, name in expected:
        folder, _, inner = name.rpartition(f"{path.name}/")
        if path.is_dir() and (folder or not is_plain_name(inner)):
            raise CheckpointError(f"{_digest_path(path)}: names {name!r}, expected files of {path.name}")
        file = path / inner if path.is_dir() else path
        found = file_digest(file)
        if found != digest:
            raise CheckpointError(f"{file}: torn or altered: found SHA-256 {found[:16]}…, expected {digest[:16]}…")


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

"""Folders of shards, read so that no code in them is run: torch's own reader unpickles whatever the index asks for."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

from bytelm.errors import CheckpointError
from bytelm.places import is_plain_name, leads_out

INDEX_FILE = ".metadata"

_PARTS: dict[str, set[str]] = {
    "builtins": {"set"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        *{"BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta"},
        *{"TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING"},
    },
}
"""Names by module of what an index that torch wrote is made of: plain data, none of which acts when it is made."""


class _IndexUnpickler(pickle.Unpickler):
    """An unpickler that knows the parts of an index and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """A part of an index.

        Raises:
            pickle.UnpicklingError: anything else was asked for.
        """
        if name not in _PARTS.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which was not run")
        return super().find_class(module, name)


class ShardReader(FileSystemReader):
    """Reads what ``FileSystemWriter`` wrote: an index of plain data, and files that lie beside it.

    Args:
        folder: of the shards.
    Raises:
        CheckpointError: the index is missing or damaged, asks for code to be run, or names files of another folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._index = _read_index(folder)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index."""
        found = self._index
        found.storage_meta = found.storage_meta or StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


def _read_index(folder: Path) -> Metadata:
    path = folder / INDEX_FILE
    try:
        with path.open("rb") as file:
            found = _IndexUnpickler(file).load()
    except Exception as error:  # noqa: BLE001 (a damaged pickle may raise anything)
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: refused: {reason}; expected the index of shards that fit wrote") from None
    if not isinstance(found, Metadata) or not isinstance(found.storage_data, dict):
        raise CheckpointError(f"{path}: found a {type(found).__name__}, expected the index of shards")
    for info in found.storage_data.values():
        name = getattr(info, "relative_path", None)
        if not isinstance(name, str) or not is_plain_name(name) or leads_out(folder / name):
            raise CheckpointError(f"{path}: names the file {name!r}, expected one beside the index")
    return found


class ShardPlanner(DefaultLoadPlanner):
    """Places what is read; values that are no tensors are plain values, or are refused."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Place a value.

        Raises:
            pickle.UnpicklingError: it asks for code to be run.
        """
        plain = io.BytesIO()
        torch.save(torch.load(value, weights_only=True), plain)
        plain.seek(0)
        super().load_bytes(read_item, plain)  # torch's reads anything: it is given what has been found to be plain

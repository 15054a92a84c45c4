"""Weights of other people's checkpoints: read tensor by tensor from safetensors or ``.bin`` files, and written."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from safetensors.torch import save_file
from torch import Tensor

from bytelm.errors import CheckpointError
from bytelm.hub.json_files import read_json, write_json
from bytelm.hub.tensor_files import SAFETENSORS_DTYPES, StoredTensor, read_pickled, read_safetensors
from bytelm.places import is_plain_name, leads_out

_SAFETENSORS, _PICKLED = "model.safetensors", "pytorch_model.bin"
_READERS: tuple[tuple[str, Callable[[Path], dict[str, StoredTensor]]], ...] = (
    (_SAFETENSORS, read_safetensors),
    (_PICKLED, read_pickled),
)
"""Names of weights in the order in which they are looked for; each may have an index and shards instead."""

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


class Weights:
    """The tensors of a checkpoint, read one at a time. No file stays open or mapped between reads.

    Args:
        folder: of the checkpoint.
        stored: where the tensors are.
    """

    def __init__(self, folder: Path, stored: Mapping[str, StoredTensor]) -> None:
        self.folder = folder
        self._stored = dict(stored)
        self._first: dict[StoredTensor, str] = {}
        self._shared: WeakValueDictionary[tuple[str, torch.dtype], Tensor] = WeakValueDictionary()
        for name, tensor in self._stored.items():
            self._first.setdefault(tensor, name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, file by file in the order of their data."""
        return tuple(self._stored)

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of a tensor, without reading it."""
        return self._find(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """Type of a tensor's numbers, without reading it."""
        return self._find(name).dtype

    def where(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._find(name).file

    def alias(self, name: str) -> str:
        """The first name of the same numbers: ``name`` itself, unless a ``.bin`` file holds them once for several."""
        stored = self._find(name)
        return self._first[stored] if 0 not in stored.shape else name

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor on the CPU, contiguous, in memory that it owns.

        While it is held, a name with the same :meth:`alias` gives this very tensor, so that nothing is in memory twice.

        Args:
            name: of the tensor.
            dtype: to which it is converted piece by piece, without a copy of all of it in the type of the file; None
                for the type of the file.
        Raises:
            CheckpointError: there is no such tensor, or its file has changed since it was opened.
        """
        stored = self._find(name)
        key = self.alias(name), dtype or stored.dtype
        tensor = self._shared.get(key)
        if tensor is None:
            tensor = self._shared[key] = stored.read(name, key[1])
        return tensor

    def _find(self, name: str) -> StoredTensor:
        if name not in self._stored:
            raise CheckpointError(f"{self.folder}: no tensor {name!r} in its {len(self._stored)} tensors")
        return self._stored[name]


def open_weights(folder: Path) -> Weights:
    """The weights in a folder: safetensors first, then ``.bin``, of which no code is run; whole before sharded.

    Raises:
        CheckpointError: there are none, a file is cut or asks for code to be run, or an index and its shards disagree.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder, expected one with {_SAFETENSORS} or {_PICKLED}")
    for whole, read in _READERS:
        if os.path.lexists(folder / whole):
            return Weights(folder, read(folder / whole))
        if os.path.lexists(folder / _index(whole)):
            return Weights(folder, _read_shards(folder / _index(whole), read))
    looked_for = ", ".join(name for whole, _ in _READERS for name in (whole, _index(whole)))
    raise CheckpointError(f"{folder}: no weights, expected one of {looked_for}")


def export_weights(folder: Path, tensors: Mapping[str, Tensor], max_shard_bytes: int | None = None) -> None:
    """Write tensors as safetensors, in one file or in shards with an index, in place of safetensors that are there.

    A folder never has a mixture of old and new: until all is written it has the old ones.

    Args:
        folder: made with its parents where missing; its other files stay.
        tensors: what to write. Asked for one name at a time, and while a shard is written for those of the shard.
        max_shard_bytes: most bytes of tensors in a file, unless one tensor alone has more; None for no limit.
    Raises:
        CheckpointError: a tensor is of a type that the format lacks, or the folder cannot be written.
    """
    if max_shard_bytes is not None and max_shard_bytes < 1:
        raise CheckpointError(f"max_shard_bytes: found {max_shard_bytes}, expected at least 1")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: found a file, expected a folder or nothing")
    total, shards = _divide(tensors, max_shard_bytes)
    files = {
        _SAFETENSORS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors": names
        for number, names in enumerate(shards, start=1)
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _beside(folder) as temporary:
            for file, names in files.items():
                save_file(_owned({name: tensors[name] for name in names}), temporary / file, {"format": "pt"})
            if len(files) > 1:
                places = {name: file for file, names in files.items() for name in names}
                write_json(temporary / _index(_SAFETENSORS), {"metadata": {"total_size": total}, "weight_map": places})
            _put(temporary, folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _index(whole: str) -> str:
    return f"{whole}.index.json"


def _read_shards(index: Path, read: Callable[[Path], dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """The tensors of all shards, which must be those of the index, each in the shard it names."""
    places = _weight_map(index)
    missing = sorted(shard for shard in set(places.values()) if not (index.parent / shard).is_file())
    if missing:
        raise CheckpointError(
            f"{index}: names {len(set(places.values()))} shards, of which {len(missing)} are missing: {missing[0]}"
        )
    found: dict[str, StoredTensor] = {}
    for shard in sorted(set(places.values())):
        held = read(index.parent / shard)
        for name, tensor in held.items():
            if name in found:
                raise CheckpointError(
                    f"{tensor.file}: tensor {name!r} is also in {found[name].file.name}, expected once"
                )
            if name not in places:
                raise CheckpointError(f"{tensor.file}: holds tensor {name!r}, which {index.name} does not name")
        found |= held
    for name, shard in places.items():
        if name not in found or found[name].file.name != shard:
            raise CheckpointError(f"{index.parent / shard}: tensor {name!r} is missing, expected by {index.name}")
    return found


def _weight_map(index: Path) -> dict[str, str]:
    """Names of tensors to names of files beside the index."""
    places: Any = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise CheckpointError(f"{index}: no weight_map, expected one from names of tensors to names of files")
    for name, shard in places.items():
        if not is_plain_name(shard) or leads_out(index.parent / shard):
            raise CheckpointError(
                f"{index}: tensor {name!r} is in {shard!r}, expected the name of a file beside the index"
            )
    return places


def _divide(tensors: Mapping[str, Tensor], most: int | None) -> tuple[int, list[list[str]]]:
    """Bytes of all tensors, and their names in shards, in their order."""
    total = room = 0
    shards: list[list[str]] = [[]]
    for name in tensors:
        tensor = tensors[name]
        if name == "__metadata__":
            raise CheckpointError(f"tensor {name!r}: expected a name that safetensors does not use itself")
        if tensor.dtype not in SAFETENSORS_DTYPES.values() or tensor.layout != torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"tensor {name!r} is {tensor.layout}, {tensor.dtype} on {tensor.device}: not for a file"
            )
        if most is not None and shards[-1] and room + tensor.nbytes > most:
            shards.append([])
            room = 0
        shards[-1].append(name)
        room += tensor.nbytes
        total += tensor.nbytes
    return total, shards


def _owned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each alone in contiguous memory, as safetensors wants them."""
    seen: set[int] = set()
    owned: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != tensor.nbytes:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        seen.add(memory.data_ptr())
        owned[name] = tensor
    return owned


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder for what is being written, on the file system of ``folder`` and gone afterwards."""
    temporary = Path(tempfile.mkdtemp(prefix=".weights.", dir=folder))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(new: Path, folder: Path) -> None:
    """Move safetensors into a folder and remove those that were there.

    One file replaces another at once. Shards come between the removal of what says which files count and its return.
    """
    entrances = (_index(_SAFETENSORS), _SAFETENSORS)
    names = {path.name for path in new.iterdir()}
    old = [path for path in folder.iterdir() if path.name in entrances or _SHARD.fullmatch(path.name)]
    if _SAFETENSORS in names:
        os.replace(new / _SAFETENSORS, folder / _SAFETENSORS)
    for path in sorted(old, key=lambda path: path.name != _index(_SAFETENSORS)):  # it may be older than the file
        if path.name not in names or len(names) > 1:
            path.unlink()
    for name in sorted(names - {_SAFETENSORS}, key=lambda name: name in entrances):
        os.replace(new / name, folder / name)

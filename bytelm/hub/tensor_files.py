"""What a file of weights holds, known without reading its data: safetensors, and what torch.save writes.

Data are read at their place in the file, not mapped into memory: Linux refuses a private mapping, which is what
``safetensors.safe_open`` and ``torch.load(mmap=True)`` make, of a file larger than the memory, and the pages of a
mapping count as memory of the process until it ends.
"""

import json
import math
import mmap
import os
import pickle
import re
import struct
import warnings
import zipfile
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bytelm.errors import CheckpointError

SAFETENSORS_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
"""Names of number types in safetensors files."""

_MOST_HEADER_BYTES = 100_000_000  # that of the safetensors library
_PIECE_BYTES, _LARGE_BYTES = 2**23, 2**20
_MOST_READ_BYTES = 2**30  # Linux reads at most 2 GiB at once
_LFS_POINTER, _ZIP = b"version https://git-lfs", b"PK\x03\x04"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file. Two that are equal are the same numbers in the same place.

    Args:
        file: that holds it.
        written_ns: when the file was last written.
        dtype: of its numbers.
        shape: of the tensor.
        stride: steps between its numbers, in numbers.
        start: byte of the file at which its first number stands.
        held: the tensor itself, where the format of the file does not allow to read it alone.
    """

    file: Path
    written_ns: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    held: Tensor | None = field(default=None, compare=False, repr=False)

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """The tensor as ``dtype``, contiguous, converted piece by piece.

        Raises:
            CheckpointError: the file has changed since it was opened, or cannot be read.
        """
        if self.held is not None:
            return self.held.to(dtype, copy=True, memory_format=torch.contiguous_format)
        try:
            with self.file.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_mtime_ns != self.written_ns:
                    raise CheckpointError(f"{self.file}: changed while it was being read")
                file.seek(self.start)
                return self._read_span(file, dtype).as_strided(self.shape, self.stride).contiguous()
        except (OSError, EOFError, MemoryError, RuntimeError) as error:
            raise CheckpointError(f"{self.file}: tensor {name!r} cannot be read: {_reason(error)}") from error

    def _read_span(self, file: BinaryIO, dtype: torch.dtype) -> Tensor:
        """All numbers from the first of the tensor to its last."""
        numbers = _memory(_span(self.shape, self.stride), dtype)
        if dtype == self.dtype:
            _read_into(file, numbers)
            return numbers
        piece = _memory(min(len(numbers), _PIECE_BYTES // self.dtype.itemsize), self.dtype)
        for part in numbers.split(max(len(piece), 1)):
            _read_into(file, piece[: len(part)])
            part.copy_(piece[: len(part)])
        return numbers


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, from its header.

    Raises:
        CheckpointError: the file is cut, or is no safetensors file of number types that torch has.
    """
    header, begin, size, written_ns = _safetensors_header(path)
    header.pop("__metadata__", None)
    spans = {name: _safetensors_span(path, name, entry) for name, entry in header.items()}
    end = 0
    found: dict[str, StoredTensor] = {}
    for name in sorted(spans, key=spans.__getitem__):
        (start, stop), entry = spans[name], header[name]
        if start != end:
            raise CheckpointError(f"{path}: tensor {name!r} begins at byte {start} of the data, expected {end}")
        if begin + stop > size:
            missing = begin + stop - size
            raise CheckpointError(
                f"{path}: the file is cut: of the {stop - start} bytes of tensor {name!r}"
                f" the last {min(missing, stop - start)} are missing"
            )
        shape, end = tuple(entry["shape"]), stop
        dtype, stride = SAFETENSORS_DTYPES[entry["dtype"]], _contiguous_stride(shape)
        found[name] = StoredTensor(path, written_ns, dtype, shape, stride, begin + start)
    if begin + end != size:
        raise CheckpointError(f"{path}: found {size - begin - end} bytes after the last tensor, expected none")
    return found


def read_pickled(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file that torch.save wrote, by an unpickler that runs no code of the file.

    While what is returned is held, a file in the format before torch 1.6 is in memory as a whole, and with torch 2.6,
    which does not tell where in a file a tensor is, the file is mapped: its pages then count as memory of the process,
    and one that is larger than the memory may be refused.

    Raises:
        CheckpointError: the file is cut or no such file, asks for code to be run, or holds more than dense tensors.
    """
    try:
        with path.open("rb") as file:
            written_ns = os.fstat(file.fileno()).st_mtime_ns
            first = file.read(len(_LFS_POINTER))
            _refuse_pointer(path, first)
            zipped = first.startswith(_ZIP)
            places = _zip_places(path, file) if zipped else {}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {_reason(error)}") from error
    state = _unpickled(path, "fake" if zipped else "whole")
    placed = zipped and _are_placed(state)
    if zipped and not placed:
        state = _unpickled(path, "mapped")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: found a {type(state).__name__}, expected a dict of tensors")
    found: dict[str, StoredTensor] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: entry {name!r} is a {type(tensor).__name__}, expected a tensor with a name")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
            raise CheckpointError(f"{path}: tensor {name!r} is {tensor.layout}, {tensor.dtype}, expected a dense one")
        start = _pickled_start(path, name, tensor, places) if placed else tensor.data_ptr()
        held = None if placed else tensor.detach()
        shape, stride = tuple(tensor.shape), tuple(tensor.stride())
        found[name] = StoredTensor(path, written_ns, tensor.dtype, shape, stride, start, held)
    return found


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int, int, int]:
    """The header, the byte after it, the bytes of the file, and when it was written."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            first = file.read(8)
            _refuse_pointer(path, first + file.read(len(_LFS_POINTER) - 8))
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
            if not 2 <= length <= _MOST_HEADER_BYTES:
                raise CheckpointError(f"{path}: no safetensors header, expected one in its first bytes")
            if 8 + length > status.st_size:
                raise CheckpointError(
                    f"{path}: the file is cut: found {status.st_size - 8} of {length} bytes of header"
                )
            file.seek(8)
            header = json.loads(file.read(length).decode("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {_reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its safetensors header is damaged: {_reason(error)}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: its header is a {type(header).__name__}, expected a JSON object")
    return header, 8 + length, status.st_size, status.st_mtime_ns


def _safetensors_span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """First byte of a tensor's data and the one after its last, in the data; shape and number type are checked."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in SAFETENSORS_DTYPES:
        raise CheckpointError(f"{path}: tensor {name!r} is of type {dtype!r}, expected {', '.join(SAFETENSORS_DTYPES)}")
    if not _are_sizes(shape) or not _are_sizes(span) or len(span) != 2:
        raise CheckpointError(f"{path}: tensor {name!r}: shape {shape!r} at {span!r}, expected numbers from 0")
    if span[1] - span[0] != (expected := math.prod(shape) * SAFETENSORS_DTYPES[dtype].itemsize):
        raise CheckpointError(
            f"{path}: tensor {name!r} has {span[1] - span[0]} bytes, expected {expected} for {dtype} of shape {shape}"
        )
    return span[0], span[1]


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _unpickled(path: Path, way: Literal["fake", "mapped", "whole"]) -> Any:
    """What the file holds; ``fake``: tensors without data, which know their place (torch's note on serialization)."""
    try:
        with warnings.catch_warnings(action="ignore"), FakeTensorMode() if way == "fake" else nullcontext():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=way == "mapped")
    except Exception as error:  # a damaged pickle may raise anything
        raise CheckpointError(f"{path}: refused: {refusal(error)}; expected tensors that torch.save wrote") from error


def refusal(error: Exception) -> str:
    """One line for what ``torch.load`` raised with ``weights_only``; its own text advises to run the code."""
    if not isinstance(error, pickle.UnpicklingError):
        return _reason(error)
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it asks for {asked[1]}, which was not run" if asked else "its pickle is not one of tensors"


def _zip_places(path: Path, file: BinaryIO) -> dict[int, int]:
    """First byte and number of bytes of every record of an archive, checked to be as they were in memory."""
    try:
        with zipfile.ZipFile(file) as archive:
            places: dict[int, int] = {}
            for record in archive.infolist():
                if record.compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(
                        f"{path}: {record.filename} is compressed, expected it as torch.save writes it"
                    )
                if record.filename.endswith("/byteorder") and archive.read(record) != b"little":
                    raise CheckpointError(f"{path}: {archive.read(record)!r} order of bytes, expected little-endian")
                file.seek(record.header_offset)
                local = file.read(30)
                name_bytes, extra_bytes = struct.unpack("<HH", local[26:])
                places[record.header_offset + 30 + name_bytes + extra_bytes] = record.file_size
            return places
    except CheckpointError:
        raise
    except Exception as error:  # as may a damaged archive
        raise CheckpointError(
            f"{path}: the file is cut or damaged, expected an archive of torch.save: {_reason(error)}"
        ) from error


def _are_placed(state: Any) -> bool:
    """Whether tensors without data know their place: from torch 2.7 on."""
    tensors = [tensor for tensor in state.values() if isinstance(tensor, Tensor)] if isinstance(state, dict) else []
    return all(_place(tensor) is not None for tensor in tensors if tensor.layout == torch.strided)


def _place(tensor: Tensor) -> int | None:
    """The byte of the file at which the storage of a tensor without data begins."""
    place: Any = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    return place


def _pickled_start(path: Path, name: str, tensor: Tensor, places: dict[int, int]) -> int:
    """The byte of the file at which a tensor begins; it is checked to lie in one record of the archive."""
    offset = _place(tensor)
    assert offset is not None
    first, count = int(tensor.storage_offset()), _span(tuple(tensor.shape), tuple(tensor.stride()))
    end = (first + count) * tensor.dtype.itemsize
    if count and (first < 0 or places.get(offset, 0) < end):
        raise CheckpointError(
            f"{path}: tensor {name!r}: found {places.get(offset, 0)} bytes of data, expected at least {end}"
        )
    return offset + first * tensor.dtype.itemsize


def _refuse_pointer(path: Path, first: bytes) -> None:
    if first == _LFS_POINTER:
        raise CheckpointError(f"{path}: found a pointer of Git LFS, expected the weights (`git lfs pull` fetches them)")


def _memory(count: int, dtype: torch.dtype) -> Tensor:
    """Room for numbers. Where it is much, the system has it back when it is dropped; malloc would keep holes."""
    size = count * dtype.itemsize
    if size < _LARGE_BYTES:
        return torch.empty(count, dtype=dtype)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    return torch.frombuffer(mmap.mmap(-1, size, **private), dtype=dtype)


def _read_into(file: BinaryIO, numbers: Tensor) -> None:
    """Fill a contiguous tensor with the next bytes of a file."""
    view, done = numbers.view(torch.uint8).numpy().data, 0
    while done < len(view):
        count = file.readinto(view[done : done + _MOST_READ_BYTES])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"the file ends {len(view) - done} bytes early")
        done += count


def _span(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Numbers from the first of a tensor to its last."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def _contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(max(size, 1) for size in shape[axis + 1 :]) for axis in range(len(shape)))


def _reason(error: Exception) -> str:
    """The first line of what an error says."""
    said = getattr(error, "strerror", None) or str(error)
    return said.strip().splitlines()[0][:200] if said.strip() else type(error).__name__

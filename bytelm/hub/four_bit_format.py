"""Weights in four bits as bitsandbytes writes them into a checkpoint, read with torch alone.

Beside ``NAME.weight`` (two codes per byte) stand ``NAME.weight.absmax`` (a scale per block), ``NAME.weight.quant_map``
(the code book) and ``NAME.weight.quant_state.bitsandbytes__TYPE`` (JSON as bytes); with double quantisation also
``NAME.weight.nested_absmax`` and ``NAME.weight.nested_quant_map``.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from bytelm.errors import CheckpointError
from bytelm.hub.weights import Weights
from bytelm.nn.four_bit import BLOCK_SIZES, QUANT_TYPES, FourBitWeight, NestedScales, code_book

_PART = re.compile(r"(.+\.weight)\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state(?:\..*)?)")
_NEAR = 1e-4  # Versions differ in the digits of the book that they write down; their kernels have books of their own.
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def four_bit_names(names: Iterable[str]) -> dict[str, list[str]]:
    """The weights in four bits among the tensors of a checkpoint.

    Returns:
        For the name of each such weight the names of all its tensors, its own first (whether it is there or not); one
        part is enough to be found here, and :func:`read_four_bit` names what is missing.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        if match := _PART.fullmatch(name):
            groups.setdefault(match[1], [match[1]]).append(name)
    return groups


def read_four_bit(name: str, names: Collection[str], read: Callable[[str], Tensor], where: str) -> FourBitWeight:
    """One weight in four bits.

    Args:
        name: of the weight, a key of :func:`four_bit_names`.
        names: of the tensors there are, at least those of this weight.
        read: the tensor of a name.
        where: the file, for messages.
    Returns:
        The weight on the device on which ``read`` gives tensors; its bytes are not copied.
    Raises:
        CheckpointError: a part is missing, of an unknown type, or of a size that does not fit the shape; the message
            names the file and the tensor.
    """
    return _Reader(name, names, read, where).weight()


class FourBitTensors:
    """The weights of a folder, those in four bits as if they were plain; each is dequantised when it is read.

    Args:
        weights: of the folder.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights, self._groups = weights, four_bit_names(weights.names)
        parts = {part for group in self._groups.values() for part in group[1:]}
        self.names: Collection[str] = frozenset({*weights.names, *self._groups} - parts)
        """Of all weights, each once, however it is stored."""
        self.four_bit: Collection[str] = frozenset(self._groups)
        """Of the weights in four bits."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the weight, without reading its bytes."""
        return self._reader(name).shape() if name in self._groups else self._weights.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """Of the weight, before it was quantised where it was."""
        return self._reader(name).dtype() if name in self._groups else self._weights.dtype(name)

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """The weight, dequantised where it is in four bits."""
        return self.packed(name).dequantise(dtype) if name in self._groups else self._weights.read(name, dtype)

    def packed(self, name: str) -> FourBitWeight:
        """A weight of :attr:`four_bit` as it is.

        Raises:
            CheckpointError: as :func:`read_four_bit`.
        """
        return self._reader(name).weight()

    def where(self, name: str) -> Path:
        """The file a weight is in."""
        return self._weights.where(name if name in self._weights else self._groups[name][1])

    def _reader(self, name: str) -> "_Reader":
        parts = [part for part in self._groups[name] if part in self._weights]
        return _Reader(name, parts, self._weights.read, str(self.where(name)))


@dataclass(frozen=True)
class _Reader:
    """The parts of one weight, each checked as it is read."""

    name: str
    names: Collection[str]
    read: Callable[[str], Tensor]
    where: str

    def weight(self) -> FourBitWeight:
        """All of the weight, whose parts fit together."""
        state_name, quant_type = self._state_name()
        state = self._state(state_name, quant_type)
        num = prod(state["shape"])
        packed = self._part("").contiguous().flatten().view(torch.uint8)
        self._expect_size("", len(packed), -(-num // 2), "bytes", state["shape"])
        blocks = -(-num // state["blocksize"])
        return FourBitWeight(
            packed=packed,
            scales=self._nested(state_name, state, blocks) if self._is_nested(state) else self._scales(blocks, state),
            code=self._code(quant_type),
            blocksize=state["blocksize"],
            shape=tuple(state["shape"]),
            quant_type=quant_type,
            dtype=_DTYPES[state["dtype"]],
        )

    def shape(self) -> tuple[int, ...]:
        return tuple(self._state(*self._state_name())["shape"])

    def dtype(self) -> torch.dtype:
        return _DTYPES[self._state(*self._state_name())["dtype"]]

    def _state_name(self) -> tuple[str, str]:
        """The name of the tensor that describes the others, and the code book that it names."""
        found = sorted(name for name in self.names if name.startswith(f"{self.name}.quant_state"))
        expected = [f"{self.name}.quant_state.bitsandbytes__{quant_type}" for quant_type in QUANT_TYPES]
        if not found:
            raise self._error(f"{expected[0]} (or …{QUANT_TYPES[1]})", "is missing")
        if len(found) > 1:
            raise self._error(found[1], f"stands beside {found[0]}, expected one quant state")
        if found[0] not in expected:
            raise self._error(found[0], f"is of an unknown quant type, expected one of {', '.join(QUANT_TYPES)}")
        return found[0], QUANT_TYPES[expected.index(found[0])]

    def _state(self, state_name: str, quant_type: str) -> dict[str, Any]:
        """The description, its fields checked."""
        tensor = self.read(state_name)
        try:
            if tensor.dtype != torch.uint8:
                raise ValueError(f"found {tensor.dtype}, expected bytes")
            state = json.loads(bytes(tensor.flatten().tolist()))
        except (ValueError, RecursionError) as error:
            raise self._error(state_name, f"is not readable as JSON: {error}") from error
        if not isinstance(state, dict):
            raise self._error(state_name, f"holds a {type(state).__name__}, expected a JSON object")
        shape = state.get("shape")
        if not (isinstance(shape, list) and shape and all(_is_count(axis) for axis in shape)):
            raise self._error(state_name, f"has shape {shape!r}, expected a list of positive numbers")
        fields: dict[str, tuple[object, ...]] = {
            "quant_type": (quant_type,),
            "blocksize": BLOCK_SIZES,
            "dtype": tuple(_DTYPES),
        }
        for field, allowed in fields.items():
            if state.get(field) not in allowed or isinstance(state[field], bool | float):
                expected = " or ".join(map(str, allowed))
                raise self._error(state_name, f"has {field} {state.get(field)!r}, expected {expected}")
        return state

    def _is_nested(self, state: dict[str, Any]) -> bool:
        parts = (f"{self.name}.nested_absmax", f"{self.name}.nested_quant_map")
        return "nested_blocksize" in state or any(part in self.names for part in parts)

    def _scales(self, blocks: int, state: dict[str, Any]) -> Tensor:
        scales = self._floats(".absmax")
        self._expect_size(".absmax", len(scales), blocks, "scales", state["shape"])
        return scales

    def _nested(self, state_name: str, state: dict[str, Any], blocks: int) -> NestedScales:
        blocksize, offset = state.get("nested_blocksize"), state.get("nested_offset")
        if not _is_count(blocksize):
            raise self._error(state_name, f"has nested_blocksize {blocksize!r}, expected a positive number")
        if isinstance(offset, bool) or not isinstance(offset, int | float) or not isfinite(offset):
            raise self._error(state_name, f"has nested_offset {offset!r}, expected a finite number")
        if state.get("nested_dtype") != "float32":
            raise self._error(state_name, f"has nested_dtype {state.get('nested_dtype')!r}, expected float32")
        codes = self._part(".absmax").flatten()
        if codes.dtype != torch.uint8:
            raise self._error(f"{self.name}.absmax", f"is {codes.dtype}, expected torch.uint8 with nested scales")
        self._expect_size(".absmax", len(codes), blocks, "scales", state["shape"])
        absmax, code = self._floats(".nested_absmax"), self._floats(".nested_quant_map")
        self._expect_size(".nested_absmax", len(absmax), -(-blocks // blocksize), "scales", state["shape"])
        self._expect_size(".nested_quant_map", len(code), 256, "values", None)
        return NestedScales(codes, absmax, code, float(offset), blocksize)

    def _code(self, quant_type: str) -> Tensor:
        """The code book; what the file has must be it, but for rounding and the sign of zero."""
        found, expected = self._floats(".quant_map"), code_book(quant_type)
        self._expect_size(".quant_map", len(found), len(expected), "values", None)
        expected = expected.to(found.device)
        if (found - expected).abs().max() > _NEAR:
            raise self._error(f"{self.name}.quant_map", f"is not the code book of {quant_type}")
        return expected

    def _part(self, end: str) -> Tensor:
        if self.name + end not in self.names:
            raise self._error(self.name + end, "is missing")
        return self.read(self.name + end)

    def _floats(self, end: str) -> Tensor:
        tensor = self._part(end).flatten()
        if not tensor.is_floating_point():
            raise self._error(self.name + end, f"is {tensor.dtype}, expected floats")
        if not tensor.isfinite().all():
            raise self._error(self.name + end, "holds values that are not finite")
        return tensor.float()

    def _expect_size(self, end: str, found: int, expected: int, what: str, shape: list[int] | None) -> None:
        if found != expected:
            reason = "" if shape is None else f" for shape {shape}"
            raise self._error(self.name + end, f"has {found} {what}, expected {expected}{reason}")

    def _error(self, tensor: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: tensor {tensor} {what}")


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

"""Linear layers whose weights stay in four bits, in the two code books of bitsandbytes; plain torch reads them.

A weight is cut, row after row, into blocks; each value is one of 16 numbers times the scale of its block (Dettmers et
al. 2023, arXiv:2305.14314, section 3). With double quantisation the scales are quantised once more, to eight bits.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from bytelm.errors import ConfigError

BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Values per block that bitsandbytes writes."""

_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_FP4 = tuple(x / 12 for x in (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0))
# The kernels of bitsandbytes take the highest bit of fp4 for a sign, that of its second zero included.
_CODE_BOOKS = {"nf4": _NF4, "fp4": (*_FP4, *(-x for x in _FP4))}
QUANT_TYPES = tuple(_CODE_BOOKS)
"""Names of the code books: quantiles of a normal distribution (arXiv:2305.14314, appendix E), and a four-bit float."""

_CHUNK = 1 << 20  # Values that are made at a time: temporary memory stays small. A multiple of every block size.


def code_book(quant_type: str) -> Float[Tensor, "16"]:
    """The 16 float32 values of a code book of :data:`QUANT_TYPES`, by code."""
    return torch.tensor(_CODE_BOOKS[quant_type], dtype=torch.float32)


@dataclass(frozen=True, eq=False)
class NestedScales:
    """Scales of blocks in eight bits each: ``code[codes] * absmax + offset``.

    Attributes:
        codes: one per block of the weight.
        absmax: float32, one scale for every ``blocksize`` codes.
        code: float32, the code book.
        offset: added to every scale; rounded to float32.
        blocksize: codes per scale.
    """

    codes: UInt8[Tensor, " _"]
    absmax: Float[Tensor, " _"]
    code: Float[Tensor, "256"]
    offset: float
    blocksize: int

    def unfold(self) -> Float[Tensor, " _"]:
        """The scales in float32."""
        return _scale(self.code.index_select(0, self.codes.int()), self.absmax, self.blocksize).add_(self.offset)


@dataclass(frozen=True, eq=False)
class FourBitWeight:
    """A tensor in four bits per value.

    Attributes:
        packed: two codes per byte, that of the earlier value in the higher half.
        scales: one per block, float32 or nested.
        code: float32, the value of each code; see :func:`code_book`.
        blocksize: values per block, one of :data:`BLOCK_SIZES`; the last block may be short.
        shape: of the tensor; a linear layer has its outputs first.
        quant_type: one of :data:`QUANT_TYPES`.
        dtype: of the tensor before it was quantised.
    """

    packed: UInt8[Tensor, " _"]
    scales: Float[Tensor, " _"] | NestedScales
    code: Float[Tensor, "16"]
    blocksize: int
    shape: tuple[int, ...]
    quant_type: str
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Memory of all tensors, bytes."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by names that :meth:`with_tensors` knows."""
        own = {"packed": self.packed, "code": self.code}
        if isinstance(self.scales, NestedScales):
            nested = self.scales
            return own | {"scale_codes": nested.codes, "scale_absmax": nested.absmax, "scale_code": nested.code}
        return own | {"scales": self.scales}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "FourBitWeight":
        """The same weight with other tensors, such as copies on another device."""
        scales: Tensor | NestedScales
        if isinstance(self.scales, NestedScales):
            codes, absmax, code = (tensors[name] for name in ("scale_codes", "scale_absmax", "scale_code"))
            scales = replace(self.scales, codes=codes, absmax=absmax, code=code)
        else:
            scales = tensors["scales"]
        return replace(self, packed=tensors["packed"], code=tensors["code"], scales=scales)

    def dequantise(self, dtype: torch.dtype | None = None) -> Float[Tensor, "..."]:
        """The tensor itself; products are made in float32 and rounded once.

        Bit for bit what the formula of ``bitsandbytes.functional.dequantize_4bit`` gives for the same type. Its ways to
        it differ: some give +0 for the negative zero of ``fp4``; on a CPU with AVX-512, subnormal bfloat16 become zero,
        and rows that are no whole number of blocks get the scales of other blocks.

        Args:
            dtype: float32, float16 or bfloat16; the original one if None.
        """
        scales = self.scales.unfold() if isinstance(self.scales, NestedScales) else self.scales
        pairs = torch.stack((self.code.repeat_interleave(16), self.code.repeat(16)), dim=1)
        num = prod(self.shape)
        out = torch.empty(num, dtype=dtype or self.dtype, device=self.packed.device)
        for begin in range(0, num, _CHUNK):
            end = min(begin + _CHUNK, num)
            codes = self.packed[begin // 2 : -(-end // 2)].int()
            values = pairs.index_select(0, codes).flatten()[: end - begin]
            blocks = slice(begin // self.blocksize, -(-end // self.blocksize))
            out[begin:end] = _scale(values, scales[blocks], self.blocksize)
        return out.view(self.shape)


class FourBitLinear(nn.Module):
    """A linear layer that keeps its weight in four bits and makes it anew in every call, in the type of its input.

    Gradients reach the input and the bias; the weight has none.

    Args:
        weight: of shape [outputs, inputs].
        bias: one per output; None for none.
    """

    bias: nn.Parameter | None

    def __init__(self, weight: FourBitWeight, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        for name, tensor in weight.tensors().items():
            # Floats as integers: a cast of the module to another type must leave scales and code book alone.
            self.register_buffer(name, tensor if tensor.dtype == torch.uint8 else tensor.view(torch.int32))
        self._layout = weight.with_tensors({name: tensor.to("meta") for name, tensor in weight.tensors().items()})
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias))

    @property
    def four_bit(self) -> FourBitWeight:
        """The weight; its tensors share the memory of the module's buffers."""
        buffers = {n: b if b.dtype == torch.uint8 else b.view(torch.float32) for n, b in self.named_buffers()}
        return self._layout.with_tensors(buffers)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B _"]:
        """``x W^T + bias``."""
        return functional.linear(x, self.four_bit.dequantise(x.dtype), self.bias)

    def extra_repr(self) -> str:
        """Sizes and code book, for ``print``."""
        layout = self._layout
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, {layout.quant_type}, blocksize={layout.blocksize}"


class KernelFourBitLinear(FourBitLinear):
    """The same through ``bitsandbytes.matmul_4bit``, which on a GPU reads the four bits without making the weight.

    Raises:
        ConfigError: bitsandbytes cannot be imported.
    """

    def __init__(self, weight: FourBitWeight, bias: Tensor | None = None) -> None:
        bitsandbytes()
        if isinstance(weight.scales, NestedScales) and weight.scales.blocksize != 256:
            weight = replace(weight, scales=weight.scales.unfold())  # The kernels know nested blocks of 256 alone.
        super().__init__(weight, bias)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B _"]:
        """``x W^T + bias``."""
        weight, library = self.four_bit, bitsandbytes()
        if x.device.type == "cpu" and weight.shape[1] % weight.blocksize:
            return super().forward(x)  # Kernels for AVX-512 give such rows the scales of others (bitsandbytes 0.50).
        scales, offset, nested = weight.scales, None, None
        if isinstance(scales, NestedScales):
            offset = torch.tensor(scales.offset, dtype=torch.float32, device=x.device)
            nested = library.functional.QuantState(
                absmax=scales.absmax, code=scales.code, blocksize=scales.blocksize, dtype=torch.float32
            )
            scales = scales.codes
        state = library.functional.QuantState(
            absmax=scales,
            shape=torch.Size(weight.shape),
            code=weight.code,
            blocksize=weight.blocksize,
            quant_type=weight.quant_type,
            dtype=x.dtype,
            offset=offset,
            state2=nested,
        )
        return library.matmul_4bit(x, weight.packed[None], quant_state=state, bias=self.bias)


class ReorderedLinear(nn.Module):
    """A linear layer with its outputs in another order: rows of a packed weight need not begin where a block does.

    Args:
        layer: of four bits or not.
        order: for each output the one of ``layer`` that it is.
    """

    order: Tensor

    def __init__(self, layer: nn.Module, order: Int[Tensor, " _"]) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("order", order.clone())

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B _"]:
        """The outputs of the layer, in order."""
        return self.layer(x).index_select(-1, self.order)


class FourBitFusedLinear(nn.Module):
    """Layers that read the same input, one after the other; in the place of a :class:`~bytelm.nn.fused.FusedLinear`.

    They stay apart because their blocks need not end where their rows do, and nested scales have offsets of their own.

    Args:
        layers: of four bits or not.
        parts: the output width of each part, as of the fused layer; it need not be that of a layer.
    """

    def __init__(self, layers: Sequence[nn.Module], parts: Sequence[int]) -> None:
        super().__init__()
        self.layers, self.parts = nn.ModuleList(layers), tuple(parts)

    def forward(self, x: Float[Tensor, "*B D"]) -> tuple[Float[Tensor, "*B _"], ...]:
        """The parts of all outputs."""
        return torch.cat([layer(x) for layer in self.layers], dim=-1).split(self.parts, dim=-1)


def _scale(values: Float[Tensor, " _"], scales: Float[Tensor, " _"], blocksize: int) -> Float[Tensor, " _"]:
    """``values``, changed in place: each block times its scale; the last may be short."""
    whole = len(values) // blocksize
    values[: whole * blocksize].view(-1, blocksize).mul_(scales[:whole, None])
    values[whole * blocksize :].mul_(scales[whole:])
    return values


def bitsandbytes() -> Any:
    """The library that :class:`KernelFourBitLinear` calls.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ConfigError(f"bitsandbytes: cannot be imported ({error}), expected the extra bytelm[quant]") from None

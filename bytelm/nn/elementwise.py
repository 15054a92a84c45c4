"""RMS norm and rotation in one pass each, forward and backward, while training on a CPU where the core was built."""

import importlib
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def _load() -> ModuleType | None:
    try:
        return importlib.import_module("._elementwise", __package__)
    except ImportError:
        return None


core = _load()

_TYPES = (torch.float32, torch.bfloat16)


def is_elementwise(x: Tensor, *floats: Tensor) -> bool:
    """Whether the core does what is asked of ``x`` here: on the CPU, where a gradient is asked for, not in a graph that
    ``torch.compile`` makes, which fuses such operations itself.

    Args:
        x: float32 or bfloat16.
        floats: what is to be float32.
    """
    if core is None or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    if any(part.device.type != "cpu" or type(part) not in (Tensor, nn.Parameter) for part in (x, *floats)):
        return False
    return x.dtype in _TYPES and all(part.dtype == torch.float32 for part in floats)


def rms_norm(x: Float[Tensor, "*B D"], weight: Float[Tensor, " D"], eps: float) -> Float[Tensor, "*B D"]:
    """``x / sqrt(mean(x^2) + eps)``, rounded to the type of ``x``, times ``weight``; in float32."""
    found: Tensor = _RMSNorm.apply(x, weight, eps)
    return found


def turn(
    x_BHTE: Float[Tensor, "B H T E"], cos: Float[Tensor, "*B 1 T F"], sin: Float[Tensor, "*B 1 T F"]
) -> Float[Tensor, "B H T E"]:
    """:func:`bytelm.nn.rotary.rotate`, rounded once."""
    found: Tensor = _Turn.apply(x_BHTE, cos, sin)
    return found


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        assert core is not None
        x = x.contiguous()
        y, inverse = torch.empty_like(x, dtype=torch.float32), x.new_empty(x.shape[:-1], dtype=torch.float32)
        core.norm(*_addresses(x, weight, y, inverse), *_rows(x), eps, _is_bf16(x), torch.get_num_threads())
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        assert core is not None
        x, weight, inverse = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x), torch.empty_like(weight)
        tensors = (x, weight, grads[0].contiguous(), inverse, of_x, of_weight)
        core.norm_back(*_addresses(*tensors), *_rows(x), _is_bf16(x), torch.get_num_threads())
        return of_x, of_weight, None


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        return _turned(x, y, cos, sin, back=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        batch, heads, positions, width = grads[0].shape
        of_x = grads[0].new_empty(batch, positions, heads, width).transpose(1, 2)  # as the product that x comes from
        return _turned(grads[0], of_x, cos, sin, back=True), None, None


def _turned(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> Tensor:
    assert core is not None
    batch, heads, positions, width = x.shape
    if x.stride(-1) != 1:
        x = x.contiguous()
    if cos.stride() != sin.stride() or cos.stride(-1) != 1:
        cos, sin = cos.contiguous(), sin.contiguous()
    angles = cos.expand(batch, 1, positions, -1)
    strides = (*x.stride()[:3], *y.stride()[:3], angles.stride(0), angles.stride(2))
    shape = (batch, heads, positions, width, cos.shape[-1])
    core.rotate(*_addresses(x, y, cos, sin), *shape, *strides, back, _is_bf16(x), torch.get_num_threads())
    return y


def _addresses(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _rows(x: Tensor) -> tuple[int, int]:
    return x.numel() // max(x.shape[-1], 1), x.shape[-1]


def _is_bf16(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16

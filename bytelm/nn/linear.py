"""Linear layers. On the CPU, those in bfloat16 or int8 go through a native core where torch has no fast way."""

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16, Float, Float32, Int8
from torch import Tensor, nn

from bytelm.nn import native
from bytelm.nn.widened import is_widened, widened_linear


def linear(x: Float[Tensor, "*B D"], weight: Tensor, bias: Float[Tensor, " _"] | None = None) -> Float[Tensor, "*B _"]:
    """``x W^T + bias``: :func:`torch.nn.functional.linear`, or the native core where no gradient is asked for.

    While training in bfloat16 on a CPU that cannot multiply it, as :mod:`bytelm.nn.widened`.

    In the native core sums are float32, in an order that is the same for any number of rows, and are rounded once (more
    than :data:`bytelm.nn.native.FEW_ROWS` are torch's on processors that multiply bfloat16). With
    int8 weights each row is first rounded to 16 bits: 128 inputs at a time to whole 32767ths of their largest.

    Args:
        x: any number of rows.
        weight: [outputs, inputs]; a plain tensor, or one that torchao has quantised.
        bias: one per output.
    """
    found = _matrix(weight) if native.is_for_core(x.numel() // x.shape[-1], x, weight) else None
    if found is not None:
        return _rows_linear(x, *found, bias)
    return (widened_linear if is_widened(x, weight) else F.linear)(x, weight, bias)


class Linear(nn.Linear):
    """:class:`torch.nn.Linear` through :func:`linear`."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B _"]:
        """Apply to each position on its own."""
        return linear(x, self.weight, self.bias)


def _matrix(weight: Tensor) -> tuple[Tensor, Tensor | None] | None:
    """What the native core reads of a weight: itself, or codes and one scale per output; None where it cannot."""
    plain = type(weight) in (Tensor, nn.Parameter)
    matrix, scale = (weight, None) if plain else _codes(weight)
    if matrix is None or not matrix.is_contiguous():
        return None
    return None if matrix.shape[1] % native.STEP or matrix.shape[0] < native.LEAST else (matrix, scale)


def _codes(weight: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Codes and scales of a weight that torchao has quantised to int8, each output on its own; None, None of others."""
    codes, scale = getattr(weight, "qdata", None), getattr(weight, "scale", None)
    if not isinstance(codes, Tensor) or not isinstance(scale, Tensor) or codes.dtype != torch.int8:
        return None, None
    if scale.dtype != torch.float32 or scale.numel() != len(codes) or getattr(weight, "act_quant_kwargs", None):
        return None, None
    return codes, scale.flatten()


def _run(
    x: BFloat16[Tensor, "*B D"],
    weight: BFloat16[Tensor, "_ D"] | Int8[Tensor, "_ D"],
    scale: Float32[Tensor, " _"] | None,
    bias: BFloat16[Tensor, " _"] | None,
) -> BFloat16[Tensor, "*B _"]:
    assert native.core is not None
    outputs, inputs = weight.shape
    x, y = x.contiguous(), x.new_empty(*x.shape[:-1], outputs)
    native.core.linear(
        x.data_ptr(),
        weight.data_ptr(),
        0 if scale is None else scale.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
        y.numel() // outputs,
        outputs,
        inputs,
        torch.get_num_threads(),
    )
    return y


def _shape(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


_rows_linear = native.register(
    "rows_linear", "(Tensor x, Tensor weight, Tensor? scale, Tensor? bias) -> Tensor", _run, _shape
)

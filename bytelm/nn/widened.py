"""Training in bfloat16 on CPUs that cannot multiply it: products in float32, rounded once.

A product of two numbers of 8 significant bits is exact in float32, so this is what a unit for bfloat16 with sums in
float32 gives, but for the order of the sums. Without such a unit torch's own products of bfloat16 take 7 to 100 times
as long as those of float32, by how the matrices lie.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16, Float
from torch import Tensor, nn

has_unit = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
"""Whether the processor may multiply bfloat16 itself: not where torch finds AVX2 and no more."""


def is_widened(*tensors: Tensor) -> bool:
    """Whether the product of these is one in bfloat16, as in training, and better made in float32."""
    return not has_unit and trains_in_bfloat16(*tensors)


def trains_in_bfloat16(*tensors: Tensor) -> bool:
    """Whether the product of these, on the CPU, is one in bfloat16, while training or under autocast."""
    if any(part.device.type != "cpu" or type(part) not in (Tensor, nn.Parameter) for part in tensors):
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return torch.is_grad_enabled() and all(part.dtype == torch.bfloat16 for part in tensors)


def widened_linear(
    x: Float[Tensor, "*B D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"] | None = None
) -> BFloat16[Tensor, "*B F"]:
    """``x W^T + bias`` of numbers rounded to bfloat16; what the backward pass keeps is in bfloat16, too."""
    found: Tensor = _Widened.apply(*(None if part is None else part.to(torch.bfloat16) for part in (x, weight, bias)))
    return found


def widened_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, **options: Any) -> Tensor:
    """:func:`torch.nn.functional.scaled_dot_product_attention` of numbers rounded to bfloat16, in float32, rounded."""
    q, k, v = (part.to(torch.bfloat16).float() for part in (q, k, v))
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.float()
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, **options).to(torch.bfloat16)


class _Widened(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        with torch.autocast("cpu", enabled=False):
            y = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
        return y.to(torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            g = grads[0].float()
            rows = g.flatten(0, -2)
            of_x = g @ weight.float() if wanted[0] else None
            of_weight = rows.t() @ x.flatten(0, -2).float() if wanted[1] else None
            of_bias = rows.sum(0) if wanted[2] else None
        return tuple(None if part is None else part.to(torch.bfloat16) for part in (of_x, of_weight, of_bias))

"""Rows of numbers in int8, each with a scale of its own: its largest number, in absolute value, becomes 127, or 7 where
four bits are to be enough.
"""

import torch
from jaxtyping import Float, Float32, Int8
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny
_ROWS_AT_ONCE = 1 << 16

LARGEST, LARGEST_OF_FOUR_BITS = 127, 7
"""The largest codes."""


def round_rows(
    table_RD: Float[Tensor, "R D"], largest: int = LARGEST
) -> tuple[Int8[Tensor, "R D"], Float32[Tensor, " R"]]:
    """Codes of at most ``largest`` and scales of the rows; a row of zeros has the scale 0."""
    codes_RD = torch.empty_like(table_RD, dtype=torch.int8)
    scales_R = torch.empty(len(table_RD), dtype=torch.float32, device=table_RD.device)
    for begin in range(0, len(table_RD), _ROWS_AT_ONCE):  # no second table in float32 beside the first
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        some_RD = table_RD[rows].detach().float()
        scales_R[rows] = some_RD.abs().amax(-1) / largest
        codes_RD[rows] = (some_RD / scales_R[rows, None].clamp(min=_TINY)).round().to(torch.int8)
    return codes_RD, scales_R


def restore_rows(codes_RD: Int8[Tensor, "*B D"], scales_R: Float32[Tensor, "*B"]) -> Float32[Tensor, "*B D"]:
    """The rounded rows as floats."""
    return codes_RD * scales_R[..., None]

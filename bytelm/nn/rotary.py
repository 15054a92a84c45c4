"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34), half-split layout as in Llama."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rotary_angles(
    positions: Int[Tensor, "*B T"], head_width: int, base: float
) -> tuple[Float[Tensor, "*B T E"], Float[Tensor, "*B T E"]]:
    """Cosines and sines of the rotation at each position, in float32.

    Pair ``i`` of ``head_width / 2`` pairs turns by ``position * base ** (-2 i / head_width)`` radians.
    """
    exponent = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    angles = positions[..., None].float() * base**-exponent
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(
    x_BHTE: Float[Tensor, "B H T E"], cos: Float[Tensor, "*B T E"], sin: Float[Tensor, "*B T E"]
) -> Float[Tensor, "B H T E"]:
    """Turn each pair (i, i + E/2) of the last axis by its angle. ``cos`` and ``sin``: (T, E), or (B, T, E) per row."""
    if cos.dim() == 3:
        cos, sin = cos[:, None], sin[:, None]
    first, second = x_BHTE.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x_BHTE * cos + turned * sin).to(x_BHTE.dtype)

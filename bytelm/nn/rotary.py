"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34), half-split layout as in Llama."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rotary_angles(
    positions: Int[Tensor, "*B T"], head_width: int, base: float
) -> tuple[Float[Tensor, "*B 1 T E"], Float[Tensor, "*B 1 T E"]]:
    """Cosines and sines of the rotation at each position, the same for every head, in float32.

    The first half of the sines is negative, as :func:`rotate` needs them. Pair ``i`` of ``head_width / 2`` pairs turns
    by ``position * base ** (-2 i / head_width)`` radians.
    """
    exponent = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    angles = positions[..., None].float() * base**-exponent
    cos, sin = angles.cos()[..., None, :, :], angles.sin()[..., None, :, :]
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(
    x_BHTE: Float[Tensor, "B H T E"], cos: Float[Tensor, "*B 1 T E"], sin: Float[Tensor, "*B 1 T E"]
) -> Float[Tensor, "B H T E"]:
    """Turn each pair (i, i + E/2) of the last axis by its angle; ``cos`` and ``sin`` from :func:`rotary_angles`."""
    return (x_BHTE * cos + x_BHTE.roll(x_BHTE.shape[-1] // 2, -1) * sin).to(x_BHTE.dtype)

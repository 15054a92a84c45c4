"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34), half-split layout as in Llama."""

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from bytelm.nn.elementwise import is_elementwise, turn

Angles = tuple[Float[Tensor, "*B 1 T E"], Float[Tensor, "*B 1 T E"]]
"""Cosines, and sines whose first half is negative."""


def rotary_frequencies(width: int, base: float, device: torch.device | None = None) -> Float32[Tensor, " _"]:
    """Radians per position of each pair: ``base ** (-2 i / width)``."""
    exponent = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    frequencies: Tensor = base**-exponent
    return frequencies


def rotary_angles(positions: Int[Tensor, "*B T"], width: int, base: float) -> Angles:
    """Cosines and sines of the rotation at each position, the same for every head, in float32.

    The first half of the sines is negative, as :func:`rotate` needs them. Each pair turns by the position times its
    frequency.
    """
    angles = positions[..., None].float() * rotary_frequencies(width, base, positions.device)
    cos, sin = angles.cos()[..., None, :, :], angles.sin()[..., None, :, :]
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(
    x_BHTE: Float[Tensor, "B H T E"], cos: Float[Tensor, "*B 1 T F"], sin: Float[Tensor, "*B 1 T F"]
) -> Float[Tensor, "B H T E"]:
    """Turn each pair (i, i + F/2) of the first F dimensions of a head by its angle; ``cos`` and ``sin`` from
    :func:`rotary_angles`.
    """
    if is_elementwise(x_BHTE, cos, sin):
        return turn(x_BHTE, cos, sin)
    width = cos.shape[-1]
    if width < x_BHTE.shape[-1]:
        turned = rotate(x_BHTE[..., :width], cos, sin)
        return torch.cat((turned, x_BHTE[..., width:]), dim=-1)
    return (x_BHTE * cos + x_BHTE.roll(width // 2, -1) * sin).to(x_BHTE.dtype)

"""How attention knows where a position is: by turning queries and keys, by a bias on scores, or not at all."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn

from bytelm.nn.document_view import FlexMask
from bytelm.nn.rotary import Angles, rotary_angles, rotary_frequencies

Seen = Bool[Tensor, "B 1 T S"] | FlexMask
"""Which slots each new position may see."""


class Places(NamedTuple):
    """Where the new positions of one forward are: the same for every block, so computed once.

    Attributes:
        angles: by which queries and keys are turned; None: they are not.
        mask: the slots that are seen (bool), or what is added to the scores (float; -inf hides); None: every position
            sees itself and those before it in the same forward.
    """

    angles: Angles | None
    mask: Bool[Tensor, "B 1 T S"] | Float[Tensor, "*_ H T S"] | FlexMask | None


class Rotary(nn.Module):
    """Rotary positions on the first dimensions of each head; see :mod:`bytelm.nn.rotary`.

    Args:
        width: dimensions that turn, even; the others of a head stay.
        base: the slowest pair turns by about ``1 / base`` radians per position.
    """

    def __init__(self, width: int, base: float) -> None:
        super().__init__()
        self.width, self.base = width, base
        self._frequencies: Tensor | None = None

    def frequencies(self, device: torch.device) -> Float32[Tensor, " _"]:
        """Radians per position of each pair, made once for a device."""
        if self._frequencies is None or self._frequencies.device != device:
            self._frequencies = rotary_frequencies(self.width, self.base, device)
        return self._frequencies

    def forward(self, positions: Int[Tensor, "*B T"], seen: Seen | None) -> Places:
        """The angles of the positions."""
        return Places(rotary_angles(positions, self.width, self.base), seen)


class Alibi(nn.Module):
    """A penalty on the score that grows with the distance (Press et al. 2022, arXiv:2108.12409, section 3).

    Head h of H adds ``-slope_h * distance`` with ``slope_h = 2 ** (-8 (h + 1) / H)``, H a power of two.

    Args:
        num_heads: H.
        shrink: slopes are divided by this; 2 for a context twice as long as in training (linear interpolation,
            as BTLM's ``alibi_scaling``; Al-Khateeb et al. 2023, arXiv:2310.13017).
        trained: positions that training had, or None. The slopes of position t, from 0, are also divided by
            ``max(1, (t + 1) / trained)``: a position is read as it is when the text ends with it, whatever follows.
    """

    slopes: Tensor

    def __init__(self, num_heads: int, shrink: float = 1.0, trained: int | None = None) -> None:
        super().__init__()
        self.trained = math.inf if trained is None else trained
        self.register_buffer("slopes", alibi_slopes(num_heads) / shrink, persistent=False)

    def forward(self, positions: Int[Tensor, "*B T"], seen: Bool[Tensor, "B 1 T S"] | None) -> Places:
        """The biases of every head, -inf where a slot is not seen. Without ``seen``: among the positions themselves."""
        if seen is None:
            slots = positions
            seen = (slots <= positions[..., None])[..., None, :, :]
        else:
            slots = torch.arange(seen.shape[-1], device=positions.device)
        longer = ((positions + 1) / self.trained).clamp(min=1)
        distance = ((positions[..., None] - slots).abs() / longer[..., None])[..., None, :, :]
        bias = -self.slopes[:, None, None] * distance
        return Places(None, bias.masked_fill(~seen, -math.inf))


class Unplaced(nn.Module):
    """No position in attention: the embedding has it."""

    def forward(self, positions: Int[Tensor, "*B T"], seen: Seen | None) -> Places:
        """What is seen, and nothing else."""
        return Places(None, seen)


def alibi_slopes(num_heads: int) -> Float[Tensor, " H"]:
    """``2 ** (-8 (h + 1) / H)`` for head h, float32."""
    return 2.0 ** (-8.0 * torch.arange(1, num_heads + 1, dtype=torch.float32) / num_heads)

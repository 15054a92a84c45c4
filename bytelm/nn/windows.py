"""Windows of symbols, each with those before it."""

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

ABSENT = -1
"""Stands where a text has no symbol, before its first window."""


def with_windows_before(
    windows_BTP: Int[Tensor, "B T P"], positions: Int[Tensor, "*_ T"] | None, num: int
) -> Int[Tensor, "B T _"]:
    """Each window behind the ``num`` before it; :data:`ABSENT` before the first position of a text.

    Args:
        windows_BTP: consecutive windows of each row.
        positions: of the windows, counted from the beginning of their text; None where each row is one text. The result
            then overlaps itself in memory.
        num: 0 or more.
    """
    patch = windows_BTP.shape[-1]
    padded_BL = F.pad(windows_BTP.flatten(1), (num * patch, 0), value=ABSENT)
    found = padded_BL.unfold(1, (num + 1) * patch, patch)
    if positions is None:
        return found
    lags = torch.arange(num, -1, -1, device=windows_BTP.device).repeat_interleave(patch)
    return torch.where(positions[..., None] >= lags, found, ABSENT)

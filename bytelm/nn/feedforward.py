"""Feed-forward layers."""

import torch.nn.functional as F
from torch import nn

from bytelm.shapes import Hidden


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (Shazeer 2020, arXiv:2002.05202, equation 6)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x_BTD: Hidden) -> Hidden:
        """Apply to each position on its own."""
        return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))

"""Feed-forward layers."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (Shazeer 2020, arXiv:2002.05202, equation 6)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x_BD: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Apply to each position on its own."""
        return self.down(F.silu(self.gate(x_BD)) * self.up(x_BD))

"""Feed-forward layers."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bytelm.nn.fused import FusedLinear


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (Shazeer 2020, arXiv:2002.05202, equation 6)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = FusedLinear(width, (inner, inner))
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x_BD: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Apply to each position on its own."""
        gate, up = self.gate_up(x_BD)
        return self.down(F.silu(gate) * up)

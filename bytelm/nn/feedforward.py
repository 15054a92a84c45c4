"""Feed-forward layers."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bytelm.nn.fused import FusedLinear
from bytelm.nn.linear import Linear


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (Shazeer 2020, arXiv:2002.05202, equation 6).

    Args:
        width: D.
        inner: F.
        bias: of all three layers.
    """

    def __init__(self, width: int, inner: int, *, bias: bool = False) -> None:
        super().__init__()
        self.gate_up = FusedLinear(width, (inner, inner), bias=bias)
        self.down = Linear(inner, width, bias=bias)

    def forward(self, x_BD: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Apply to each position on its own."""
        gate, up = self.gate_up(x_BD)
        return self.down(F.silu(gate) * up)


class GeluMLP(nn.Module):
    """``down(gelu(up(x)))`` with biases, and the tanh form of GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415,
    section 2).

    Args:
        width: D.
        inner: F.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = Linear(width, inner), Linear(inner, width)

    def forward(self, x_BD: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Apply to each position on its own."""
        return self.down(F.gelu(self.up(x_BD), approximate="tanh"))

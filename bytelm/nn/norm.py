"""Normalisation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bytelm.nn import native
from bytelm.nn.elementwise import is_elementwise, rms_norm


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` (Zhang and Sennrich 2019, arXiv:1910.07467, equation 4), in float32.

    In plain operations: under autocast ``nn.RMSNorm`` warns of the weight's type and multiplies by it in another order.

    Args:
        width: D.
        eps: added to the mean square.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Normalise each vector."""
        weight = self.weight
        if is_elementwise(x, weight):
            return rms_norm(x, weight, self.eps)
        if native.takes(x) and native.fits(weight, x.dtype):
            return _in_core(x, weight, self.eps)
        y = x.float()
        y = y * (y.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return y.to(x.dtype) * weight


def _in_core(x: Float[Tensor, "*B D"], weight: Float[Tensor, " D"], eps: float) -> Float[Tensor, "*B D"]:
    assert native.core is not None
    x = x.contiguous()
    y, width = torch.empty_like(x), x.shape[-1]
    addresses = (x.data_ptr(), weight.data_ptr(), y.data_ptr())
    native.core.norm(*addresses, x.numel() // width, width, eps, x.dtype == torch.float32)
    return y

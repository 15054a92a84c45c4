"""A guess of the state after the next patch, without running the body: what the chained heads draft from."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.nn.linear import Linear
from bytelm.nn.merger import ConcatMerger


class NextPatch(nn.Module):
    """From the state after a patch, and the patch that follows it, a guess of the state after that one.

    State and merged bytes are normed, concatenated and mixed by one matrix (DeepSeek-AI 2024, arXiv:2412.19437,
    equation 21; cf. EAGLE, Li et al. 2024, arXiv:2401.15077). Where they have a block with attention, here is a
    pre-norm feed-forward layer alone, so that a guess needs no cache. A guess may be put in for the state again: the
    same weights draft every further patch (as in FastMTP, arXiv:2509.18362).

    Args:
        width: D.
        merger: turns the P bytes of a patch into one vector, with byte embeddings of its own.
        feedforward: the feed-forward layer.
        state_norm, bytes_norm, feedforward_norm, norm: norms of the two inputs, of the mix, and of the guess.
    """

    def __init__(
        self,
        width: int,
        merger: ConcatMerger,
        feedforward: nn.Module,
        *,
        state_norm: nn.Module,
        bytes_norm: nn.Module,
        feedforward_norm: nn.Module,
        norm: nn.Module,
    ) -> None:
        super().__init__()
        self.merger = merger
        self.state_norm, self.bytes_norm = state_norm, bytes_norm
        self.mix = Linear(2 * width, width, bias=False)
        self.feedforward_norm, self.feedforward = feedforward_norm, feedforward
        self.norm = norm

    def forward(self, h_BD: Float[Tensor, "*B D"], patch_BP: Int[Tensor, "*B P"]) -> Float[Tensor, "*B D"]:
        """Guess the state after ``patch_BP`` from ``h_BD``, the state (or a guess of it) before it."""
        x_BD = self.mix(torch.cat((self.state_norm(h_BD), self.bytes_norm(self.merger(patch_BP))), dim=-1))
        return self.norm(x_BD + self.feedforward(self.feedforward_norm(x_BD)))

"""Medusa heads: guesses of the tokens after the next one, from the state alone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bytelm.heads.lm_head import LMHead
from bytelm.nn.linear import Linear


class DraftHeads(nn.Module):
    """K heads beside a frozen LM head; head k guesses the token k after the one that the LM head predicts.

    Head k is a residual block and an unembedding: ``unembed(h + silu(W_k h))`` (Cai et al. 2024, arXiv:2401.10774,
    section 2.1, without their bias). The unembedding is that of the LM head, or one of its own for each head.

    Args:
        width: D.
        num_heads: K.
        unembeddings: one for each head; empty for that of the LM head.
    """

    def __init__(self, width: int, num_heads: int, unembeddings: Sequence[LMHead] = ()) -> None:
        super().__init__()
        assert len(unembeddings) in (0, num_heads)
        self.num_heads = num_heads
        self.residual = Linear(width, num_heads * width, bias=False)
        self.unembeddings = nn.ModuleList(unembeddings)

    def forward(self, h: Float[Tensor, "*B D"], lm_head: LMHead) -> Float[Tensor, "*B K V"]:
        """Logits of all heads at once, so that a shared unembedding is read once.

        Heads and unembedding may be of other float types than ``h``.

        Args:
            h: states.
            lm_head: of the frozen model.
        """
        h = h.to(self.residual.weight.dtype)
        states = h[..., None, :] + F.silu(self.residual(h).unflatten(-1, (self.num_heads, -1)))
        if not self.unembeddings:
            return _unembedded(lm_head, states)
        return torch.stack([_unembedded(head, states[..., k, :]) for k, head in enumerate(self.unembeddings)], dim=-2)

    @torch.no_grad()
    def start_as(self, lm_head: LMHead) -> None:
        """Set the weights so that each head guesses what ``lm_head`` predicts."""
        self.residual.weight.zero_()
        for head in self.unembeddings:
            for name, parameter in head.named_parameters():
                parameter.copy_(lm_head.get_parameter(name)[: lm_head.vocab_size])


def _unembedded(head: nn.Module, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
    assert isinstance(head, LMHead)
    return head.logits(states.to(head.unembedding.weight.dtype))

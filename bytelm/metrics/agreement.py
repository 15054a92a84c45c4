"""How often draft heads guess the token that the model itself would choose."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric


class DraftAgreement(Metric):
    """Shares of states at which drafts are the greedy tokens of the frozen model that follow on the same text.

    Head k drafts at state t what the model chooses at state t + k. All figures are over the same states: all but the
    last K of each window.

    Args:
        num_heads: K.
        vocab_size: V.
    """

    full_state_update = False
    hits: Tensor
    own_hits: Tensor
    leading: Tensor
    chosen: Tensor

    def __init__(self, num_heads: int, vocab_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        for name, shape in (("hits", (num_heads,)), ("own_hits", (num_heads,)), ("leading", ())):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("chosen", torch.zeros(num_heads, vocab_size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, drafts_BTK: Int[Tensor, "B T K"], greedy_BT: Int[Tensor, "B T"]) -> None:
        """Add windows: the drafts of all heads at each state, and the model's own greedy token there."""
        num_states = greedy_BT.shape[1] - self.num_heads
        later_BTK = greedy_BT[:, 1:].unfold(1, self.num_heads, 1)
        agrees = drafts_BTK[:, :num_states] == later_BTK
        self.hits += agrees.sum((0, 1))
        self.own_hits += (greedy_BT[:, :num_states, None] == later_BTK).sum((0, 1))
        self.leading += agrees.cumprod(-1).sum()
        for chosen_V, later in zip(self.chosen, later_BTK.flatten(0, 1).t(), strict=True):
            chosen_V += torch.bincount(later, minlength=len(chosen_V))

    def compute(self) -> dict[str, Float[Tensor, "*K"]]:
        """Shares from 0 to 1.

        ``acceptance`` (K,): of each head; ``untrained`` (K,): of heads that draft the next token once more, as fresh
        ones do; ``constant`` (K,): of the best token to draft always; ``leading`` (): drafted tokens up to the first
        that does not agree, per state.
        """
        num_states = self.chosen.sum(1).clamp(min=1).double()
        return {
            "acceptance": self.hits / num_states,
            "untrained": self.own_hits / num_states,
            "constant": self.chosen.amax(1) / num_states,
            "leading": self.leading / num_states[0],
        }

"""How often a head's first choice is the byte that came."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric


class HeadAccuracy(Metric):
    """Share of bytes that each head's most probable byte hits; chained heads see the true bytes before theirs."""

    higher_is_better = True
    full_state_update = False
    hits: Tensor
    num_bytes: Tensor

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros(num_heads, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_bytes", torch.zeros(num_heads, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        logits_BTKV: Float[Tensor, "B T K V"],
        targets_BTK: Int[Tensor, "B T K"],
        counts_BTK: Bool[Tensor, "B T K"] | None = None,
    ) -> None:
        """Add the predictions of all heads at B x T states, or of those bytes that count."""
        counts_BTK = torch.ones_like(targets_BTK, dtype=torch.bool) if counts_BTK is None else counts_BTK
        self.hits += ((logits_BTKV.argmax(-1) == targets_BTK) & counts_BTK).sum((0, 1))
        self.num_bytes += counts_BTK.sum((0, 1))

    def compute(self) -> Float[Tensor, " K"]:
        """Accuracy from 0 to 1, one for each head."""
        return self.hits.double() / self.num_bytes

"""Cross-entropies as bits, summed in float64."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric


class BitsPerCharacter(Metric):
    """Bits per character from the nats of stored bytes: ``nats / bytes / ln 2 * bytes_per_character``.

    Args:
        bytes_per_character: stored bytes of the corpus over its characters. Stored bytes include the BOS patch and EOS
            of each document, so their cost is shared out over the characters.
    """

    higher_is_better = False
    full_state_update = False
    nats: Tensor
    num_bytes: Tensor

    def __init__(self, bytes_per_character: float) -> None:
        super().__init__()
        self.bytes_per_character = bytes_per_character
        self.add_state("nats", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_bytes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nats: Float[Tensor, "*B"]) -> None:
        """Add the nats of bytes that were each predicted once."""
        self.nats += nats.double().sum()
        self.num_bytes += nats.numel()

    def compute(self) -> Tensor:
        """Bits per character so far."""
        return self.nats / self.num_bytes / math.log(2) * self.bytes_per_character


class HeadBits(Metric):
    """Bits per byte of each head."""

    higher_is_better = False
    full_state_update = False
    nats: Tensor
    num_bytes: Tensor

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.add_state("nats", torch.zeros(num_heads, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_bytes", torch.zeros(num_heads, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nats_BTK: Float[Tensor, "B T K"], counts_BTK: Bool[Tensor, "B T K"] | None = None) -> None:
        """Add the nats of all heads at B x T states, or of those bytes that count."""
        counts_BTK = torch.ones_like(nats_BTK, dtype=torch.bool) if counts_BTK is None else counts_BTK
        self.nats += (nats_BTK.double() * counts_BTK).sum((0, 1))
        self.num_bytes += counts_BTK.sum((0, 1))

    def compute(self) -> Float[Tensor, " K"]:
        """Bits per byte, one for each head."""
        return self.nats / self.num_bytes / math.log(2)

"""Residual blocks."""

from torch import nn

from bytelm.nn.attention import Angles, Attention
from bytelm.nn.kv_cache import CacheView
from bytelm.shapes import Hidden


class SequentialBlock(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward, each added to the stream (Llama's wiring).

    Args:
        index: place of the block in the body; names its part of the cache.
        attention_norm, attention, feedforward_norm, feedforward: the parts, built elsewhere.
    """

    def __init__(
        self,
        index: int,
        attention_norm: nn.Module,
        attention: Attention,
        feedforward_norm: nn.Module,
        feedforward: nn.Module,
    ) -> None:
        super().__init__()
        self.index = index
        self.attention_norm, self.attention = attention_norm, attention
        self.feedforward_norm, self.feedforward = feedforward_norm, feedforward

    def forward(self, x_BTD: Hidden, angles: Angles, view: CacheView | None) -> Hidden:
        """One block of the body."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), angles, self.index, view)
        return x_BTD + self.feedforward(self.feedforward_norm(x_BTD))

"""Residual blocks."""

from torch import nn

from bytelm.nn.attention import Attention
from bytelm.nn.document_view import DocumentView
from bytelm.nn.kv_cache import CacheView
from bytelm.nn.position import Places
from bytelm.shapes import Hidden


class SequentialBlock(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward, each added to the stream (Llama's and GPT-2's wiring).

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

    def forward(self, x_BTD: Hidden, places: Places, view: CacheView | DocumentView | None) -> Hidden:
        """One block of the body."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), places, self.index, view)
        return x_BTD + self.feedforward(self.feedforward_norm(x_BTD))


class ParallelBlock(nn.Module):
    """Attention and feed-forward side by side on one norm, both added to the stream (GPT-J's wiring).

    Args:
        index: place of the block in the body; names its part of the cache.
        norm, attention, feedforward: the parts, built elsewhere.
    """

    def __init__(self, index: int, norm: nn.Module, attention: Attention, feedforward: nn.Module) -> None:
        super().__init__()
        self.index = index
        self.norm, self.attention, self.feedforward = norm, attention, feedforward

    def forward(self, x_BTD: Hidden, places: Places, view: CacheView | DocumentView | None) -> Hidden:
        """One block of the body."""
        y_BTD = self.norm(x_BTD)
        return x_BTD + self.attention(y_BTD, places, self.index, view) + self.feedforward(y_BTD)

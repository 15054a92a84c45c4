"""Attention that stays inside of documents, for forwards over windows that hold several."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bytelm.compilation import compiled


class DocumentView:
    """What the positions of windows see where each sees its own document alone; in the place of a cache's view.

    Args:
        starts_BT: the positions with which a document begins. What stands before the first of a row is a document, too.
    Attributes:
        positions: (B, T), counted from the beginning of each document.
        mask_B1TS: which positions each sees: its own and those before it in its document. On a GPU a block mask of
            FlexAttention.
    """

    def __init__(self, starts_BT: Bool[Tensor, "B T"]) -> None:
        indices = torch.arange(starts_BT.shape[1], device=starts_BT.device)
        first_BT = torch.where(starts_BT, indices, 0).cummax(dim=1).values
        self.positions: Int[Tensor, "B T"] = indices - first_BT
        make = flex_mask if starts_BT.is_cuda else dense_mask
        self.mask_B1TS: Bool[Tensor, "B 1 T T"] | FlexMask = make(first_BT)

    def extend(
        self, block: int, k_BGTE: Float[Tensor, "B G T E"], v_BGTE: Float[Tensor, "B G T E"]
    ) -> tuple[Float[Tensor, "B G T E"], Float[Tensor, "B G T E"]]:
        """Keys and values as they are: nothing is cached."""
        return k_BGTE, v_BGTE


def dense_mask(first_BT: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """Which positions each sees, from the first of its document up to itself."""
    indices = torch.arange(first_BT.shape[1], device=first_BT.device)
    return ((indices >= first_BT[..., None]) & (indices <= indices[:, None]))[:, None]


@dataclass(frozen=True)
class FlexMask:
    """:func:`dense_mask` for FlexAttention (Dong et al. 2024, arXiv:2412.05496), which leaves out blocks of scores.

    Attributes:
        block_mask: of :func:`torch.nn.attention.flex_attention.create_block_mask`.
        function: :func:`torch.nn.attention.flex_attention.flex_attention`, compiled on a GPU.
    """

    block_mask: Any
    function: Callable[..., Any]

    def attend(
        self,
        q_BHTE: Float[Tensor, "B H T E"],
        k_BGSE: Float[Tensor, "B G S E"],
        v_BGSE: Float[Tensor, "B G S E"],
        scale: float | None = None,
    ) -> Float[Tensor, "B H T E"]:
        """Scores, softmax and values; see :func:`bytelm.nn.attend.attend`."""
        y_BHTE: Tensor = self.function(q_BHTE, k_BGSE, v_BGSE, block_mask=self.block_mask, scale=scale, enable_gqa=True)
        return y_BHTE


def flex_mask(first_BT: Int[Tensor, "B T"]) -> FlexMask:
    """As :func:`dense_mask`."""
    from torch.nn.attention import flex_attention as flex  # not every forward needs it

    num_rows, num_positions = first_BT.shape
    fast = compiled if first_BT.is_cuda else _plain
    block_mask = fast(flex.create_block_mask)(
        lambda b, h, query, key: (key >= first_BT[b, query]) & (key <= query),
        num_rows,
        None,
        num_positions,
        num_positions,
        device=str(first_BT.device),
    )
    return FlexMask(block_mask, fast(flex.flex_attention))


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function

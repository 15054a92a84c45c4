"""States after every position of padded rows: what a model of bytes says wherever a text may end."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bytelm.errors import DecodingError
from bytelm.model.byte_lm import ByteLM


@dataclass(frozen=True)
class Rows:
    """Rows of ids without their padding, each behind the BOS patch that the model reads first.

    Attributes:
        symbols_BL: BOS, then a row, then anything.
        labels_BL: of the symbols; -100 for BOS and after a row.
        first: symbols of BOS.
        places_BL: of each given position, that of its symbol here; of a position inside of BOS, its last one; of
            padding, 0.
    """

    symbols_BL: Int[Tensor, "B _"]
    labels_BL: Int[Tensor, "B _"]
    first: int
    places_BL: Int[Tensor, "B L"]


def lay_rows(
    ids_BL: Int[Tensor, "B L"],
    mask_BL: Bool[Tensor, "B L"],
    labels_BL: Int[Tensor, "B L"] | None,
    opening: Int[Tensor, " _"],
    word: int,
    context: int,
) -> Rows:
    """Take padding away, wherever it is, and put BOS before every row, once.

    Args:
        ids_BL: the rows.
        mask_BL: which ids are of the row.
        labels_BL: of the ids, -100 for none.
        opening: the BOS patch, code words of BOS; so many of them, or fewer, may begin a row.
        word: symbols of one of them.
        context: L, the most symbols of a row with its BOS.
    Raises:
        DecodingError: a row is longer than the context.
    """
    first, lengths = len(opening), mask_BL.sum(1)
    order = (~mask_BL).byte().argsort(dim=1, stable=True)
    packed = ids_BL.gather(1, order)
    head = packed[:, :first]
    equal = (head == opening[: head.shape[1]]) & (torch.arange(head.shape[1], device=ids_BL.device) < lengths[:, None])
    given = equal.long().cumprod(1).sum(1) // word * word  # symbols of BOS that a row brings along
    longest = int((lengths - given).max()) + first
    if longest > context:
        raise DecodingError(f"input_ids: found {longest} symbols with BOS, expected at most the context of {context}")
    ahead = torch.arange(longest, device=ids_BL.device) - first
    source = (ahead + given[:, None]).clamp(0, ids_BL.shape[1] - 1)
    bos = F.pad(opening, (0, longest - first))
    symbols = torch.where(ahead < 0, bos, packed.gather(1, source))
    labels = torch.full_like(symbols, -100)
    if labels_BL is not None:
        inside = (ahead >= 0) & (ahead + given[:, None] < lengths[:, None])
        labels = torch.where(inside, labels_BL.gather(1, order).gather(1, source), labels)
    places = (mask_BL.cumsum(1) - 1 - given[:, None]).clamp(min=-1) + first
    return Rows(symbols, labels, first, places.masked_fill(~mask_BL, 0))


def read_everywhere(
    model: ByteLM, symbols_BL: Int[Tensor, "B L"]
) -> tuple[Float[Tensor, "B N D"], Int[Tensor, "B N _"]]:
    """States after all windows of P symbols, wherever they begin, N = L - P + 1, and what the heads read beside them.

    The P streams of a row are read side by side, as by :class:`bytelm.model.targets.NextTarget`.
    """
    patch = model.config.patch
    windows_BNP = symbols_BL.unfold(1, patch, 1)
    num_states = windows_BNP.shape[1]
    whole = F.pad(windows_BNP, (0, 0, 0, -num_states % patch))
    streams = whole.unflatten(1, (-1, patch)).transpose(1, 2).flatten(0, 1)
    found = (
        part.unflatten(0, (-1, patch)).transpose(1, 2).flatten(1, 2)[:, :num_states]
        for part in (model(streams), model.windows_of_heads(streams))
    )
    h_BND, windows_BN_ = found
    return h_BND, windows_BN_

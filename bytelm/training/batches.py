"""What a batch is: bytes or tokens, and where not all of them are targets, which ones are."""

from typing import NamedTuple

from jaxtyping import Bool, Integer
from torch import Tensor


class LabelledBatch(NamedTuple):
    """Rows of which some bytes are read and not asked for.

    Attributes:
        bytes_BL: as for :meth:`bytelm.model.byte_lm.ByteLM.read`.
        counts_BL: the bytes that are targets.
    """

    bytes_BL: Integer[Tensor, "B L"]
    counts_BL: Bool[Tensor, "B L"]


def parts_of(batch: "Tensor | LabelledBatch") -> "tuple[Tensor, Tensor | None]":
    """The bytes of a batch, and which are targets; None: all."""
    return (batch, None) if isinstance(batch, Tensor) else (batch.bytes_BL, batch.counts_BL)

"""Byte sequences of different lengths in one array."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bytelm.errors import EncodingError

PaddingSide = Literal["left", "right"]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Padded rows of ids.

    Attributes:
        ids: uint8[B, L]; L is the longest row.
        attention_mask: bool[B, L], true for the bytes of a row, false for padding.
        lengths: int64[B], the number of bytes of each row.
    """

    ids: NDArray[np.uint8]
    attention_mask: NDArray[np.bool_]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self) -> list[NDArray[np.uint8]]:
        """The rows without their padding: uint8[length] each."""
        return [ids[mask] for ids, mask in zip(self.ids, self.attention_mask, strict=True)]


def pad(rows: Sequence[NDArray[np.uint8]], word: bytes, side: PaddingSide) -> Batch:
    """Stack ``rows`` (uint8[length] each), filled up on one side with ``word`` repeated.

    Raises:
        EncodingError: ``side`` is neither "left" nor "right".
    """
    if side not in ("left", "right"):
        raise EncodingError(f"padding_side: found {side!r}, expected 'left' or 'right'")
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    longest = int(lengths.max(initial=0))
    assert not ((longest - lengths) % len(word)).any(), "padding would cut a word"
    position = np.arange(longest)
    mask = position < lengths[:, None] if side == "right" else position >= longest - lengths[:, None]
    filler = np.frombuffer(word * -(-longest // len(word)), dtype=np.uint8)[:longest]
    ids = np.empty((len(rows), longest), dtype=np.uint8)
    ids[:] = filler
    if rows:
        ids[mask] = np.concatenate(rows)
    return Batch(ids=ids, attention_mask=mask, lengths=lengths)

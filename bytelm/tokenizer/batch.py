"""Sequences of ids of different lengths in one array."""

import dataclasses
from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bytelm.errors import EncodingError

PaddingSide = Literal["left", "right"]
Id = TypeVar("Id", np.uint8, np.int64)
"""uint8 where every id is a byte, else int64."""


@dataclasses.dataclass(frozen=True)
class Batch(Generic[Id]):
    """Padded rows of ids.

    Attributes:
        ids: uint8[B, L], or int64[B, L] of a vocabulary that is not bytes; L is the longest row.
        attention_mask: bool[B, L], true for the ids of a row, false for padding.
        lengths: int64[B], the number of ids of each row.
    """

    ids: NDArray[Id]
    attention_mask: NDArray[np.bool_]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self) -> list[NDArray[Id]]:
        """The rows without their padding: one dimension each."""
        return [ids[mask] for ids, mask in zip(self.ids, self.attention_mask, strict=True)]


def pad(rows: Sequence[NDArray[Id]], word: NDArray[Id], side: PaddingSide) -> Batch[Id]:
    """Stack ``rows`` (one dimension each), filled up on one side with the ids ``word`` repeated.

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
    ids = np.empty((len(rows), longest), dtype=word.dtype)
    ids[:] = np.resize(word, longest)
    if rows:
        ids[mask] = np.concatenate(rows)
    return Batch(ids=ids, attention_mask=mask, lengths=lengths)

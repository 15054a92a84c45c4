"""From P byte embeddings to one patch position."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.nn.embedding import embedding
from bytelm.nn.ngram import NgramTables


class ConcatMerger(nn.Module):
    """Concatenate the P byte embeddings of a window, project to the width, add the window's n-gram rows.

    Args:
        vocab_size: V.
        patch: P.
        byte_width: width of one byte embedding.
        width: D.
        tables: n-gram tables read at the last byte of the window, or None.
    """

    def __init__(self, vocab_size: int, patch: int, byte_width: int, width: int, tables: NgramTables | None) -> None:
        super().__init__()
        self.embedding = embedding(vocab_size, byte_width)
        self.projection = nn.Linear(patch * byte_width, width, bias=False)
        self.tables = tables

    def forward(self, windows_BP: Int[Tensor, "*B P"]) -> Float[Tensor, "*B D"]:
        """One vector per window."""
        x_BD = self.projection(self.embedding(windows_BP).flatten(-2))
        return x_BD if self.tables is None else x_BD + self.tables(windows_BP)

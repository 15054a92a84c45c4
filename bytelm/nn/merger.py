"""From the symbols of a window to one position."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.nn import native
from bytelm.nn.embedding import embedding
from bytelm.nn.known_modules import Knowledge
from bytelm.nn.linear import Linear
from bytelm.nn.native_body import is_plain
from bytelm.nn.native_merger import MergerSizes, merge_windows
from bytelm.nn.ngram import NgramTables, parts_of_tables


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
        self.patch = patch
        self.embedding = embedding(vocab_size, byte_width)
        self.projection = Linear(patch * byte_width, width, bias=False)
        self.tables = tables

    def forward(
        self, symbols_BN: Int[Tensor, "*B _"], positions: Int[Tensor, "*_ T"] | None = None
    ) -> Float[Tensor, "*B D"]:
        """One vector per window, the last P of some symbols; ``positions`` are not looked at."""
        found = self._in_core(symbols_BN)
        if found is not None:
            return found
        x_BD = self.merge(self.embedding(symbols_BN[..., -self.patch :]).flatten(-2))
        return x_BD if self.tables is None else x_BD + self.tables(symbols_BN)

    def merge(self, bytes_BF: Float[Tensor, "*B F"]) -> Float[Tensor, "*B D"]:
        """From the concatenated embeddings to one vector."""
        return self.projection(bytes_BF)

    def _in_core(self, symbols_BN: Int[Tensor, "*B _"]) -> Float[Tensor, "*B D"] | None:
        """:meth:`forward` in one call of the native core; None where it cannot read these weights, or so many rows."""
        weight, width = self.embedding.weight, self.projection.out_features
        rows = symbols_BN.numel() // symbols_BN.shape[-1]
        if not native.takes_rows(rows, width, weight.dtype, weight.device) or type(symbols_BN) is not Tensor:
            return None
        addresses = _MERGERS.addresses(self, weight.dtype)
        if addresses is None or symbols_BN.dtype != torch.int64:
            return None
        mlp = 2 if type(self) is MLPMerger else 0
        tables = None
        if self.tables is not None:
            tables = self.tables.addresses(addresses[2 + mlp :], weight.dtype)
            if tables is None:
                return None
        return merge_windows(symbols_BN, addresses[: 2 + mlp], tables, self._sizes, weight.dtype)

    @property
    def _sizes(self) -> MergerSizes:
        num_symbols, byte_width = self.embedding.weight.shape
        return MergerSizes(self.patch, self.projection.out_features, byte_width, 0, num_symbols)


class MLPMerger(ConcatMerger):
    """``projection(x) + down(silu(up(x)))`` of the concatenated embeddings x of a window, and its n-gram rows.

    What a byte says depends on the bytes beside it here; in :class:`ConcatMerger` each adds a vector of its own.

    Args:
        vocab_size: V.
        patch: P.
        byte_width: width of one byte embedding.
        width: D.
        tables: n-gram tables read at the last byte of the window, or None.
        inner: width between ``up`` and ``down``.
    """

    def __init__(
        self, vocab_size: int, patch: int, byte_width: int, width: int, tables: NgramTables | None, inner: int
    ) -> None:
        super().__init__(vocab_size, patch, byte_width, width, tables)
        self.up = Linear(patch * byte_width, inner, bias=False)
        self.down = Linear(inner, width, bias=False)

    @property
    def _sizes(self) -> MergerSizes:
        return super()._sizes._replace(inner=self.up.out_features)

    def merge(self, bytes_BF: Float[Tensor, "*B F"]) -> Float[Tensor, "*B D"]:
        """From the concatenated embeddings to one vector."""
        return super().merge(bytes_BF) + self.down(F.silu(self.up(bytes_BF)))


def _parts_of_merger(merger: nn.Module) -> list[nn.Module] | None:
    """Embedding, projection, the layers of an MLP, parts of tables; None of another kind, or where one was replaced."""
    if type(merger) not in (ConcatMerger, MLPMerger):
        return None
    assert isinstance(merger, ConcatMerger)
    layers: list[nn.Module] = [merger.projection]
    if isinstance(merger, MLPMerger):
        layers += merger.up, merger.down
    if type(merger.embedding) is not nn.Embedding or not all(is_plain(layer) for layer in layers):
        return None
    return [merger.embedding, *layers, *([] if merger.tables is None else parts_of_tables(merger.tables))]


_MERGERS = Knowledge(_parts_of_merger)


class TokenEmbedding(nn.Module):
    """One vector per symbol (P = 1), times ``scale``, plus one per position where positions are learned, plus the rows
    of the n-grams that end with it.

    Args:
        num_rows: rows of the table.
        width: D.
        scale: of the vectors of symbols.
        num_positions: rows of the table of positions; 0 for none.
        tables: n-gram tables, or None.
    """

    def __init__(
        self,
        num_rows: int,
        width: int,
        scale: float = 1.0,
        num_positions: int = 0,
        tables: NgramTables | None = None,
    ) -> None:
        super().__init__()
        self.tables = tables
        self.scale = scale
        self.embedding = embedding(num_rows, width)
        self.positions = embedding(num_positions, width) if num_positions else None

    def forward(self, symbols_BN: Int[Tensor, "*B _"], positions: Int[Tensor, "*_ T"]) -> Float[Tensor, "*B D"]:
        """One vector for the last of some symbols."""
        x_BD = self.embedding(symbols_BN[..., -1])
        if self.scale != 1.0:
            x_BD = x_BD * self.scale
        if self.tables is not None:
            x_BD = x_BD + self.tables(symbols_BN)
        return x_BD if self.positions is None else x_BD + self.positions(positions)

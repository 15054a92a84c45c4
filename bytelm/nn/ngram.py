"""Hashed n-gram tables: capacity that costs a row read per position and no matrix work."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.nn import native
from bytelm.nn.embedding import embedding
from bytelm.nn.int8_rows import restore_rows, round_rows
from bytelm.nn.linear import Linear
from bytelm.nn.native_heads import TableAddresses

_MULTIPLIER = 0x9E3779B1  # 2^32 / golden ratio: Fibonacci hashing (Knuth, TAOCP vol. 3, section 6.4)
_MASK = 0xFFFFFFFF

ABSENT = -1
"""Stands in n-grams where a text has no symbol, before its first window."""


def windows_before(windows_BTP: Int[Tensor, "B T P"], positions: Int[Tensor, "*_ T"], num: int) -> Int[Tensor, "B T _"]:
    """The ``num`` windows before each one, put together; :data:`ABSENT` before the first position of a text.

    Args:
        windows_BTP: consecutive windows of each row.
        positions: of the windows, counted from the beginning of their text.
        num: at least 1.
    """
    parts = [
        torch.where((positions >= lag)[..., None], windows_BTP.roll(lag, dims=1), ABSENT) for lag in range(num, 0, -1)
    ]
    return torch.cat(parts, dim=-1)


def ngram_rows(bytes_TN: Int[Tensor, "*T N"], num_rows: int) -> Int[Tensor, "*T"]:
    """Row of the n-gram made of the last axis: a 32-bit multiplicative hash, the same on every platform.

    Without the reduction to ``num_rows`` it is injective for n <= 2, and from n = 3 on as good as a random function:
    of all 2^24 trigrams, 0.2 % share their 32-bit key. Collisions are the price of a small table anyway. Symbols may be
    tokens, which it scatters as well, and :data:`ABSENT`.
    """
    key = torch.full(bytes_TN.shape[:-1], bytes_TN.shape[-1], dtype=torch.int64, device=bytes_TN.device)
    for i in range(bytes_TN.shape[-1]):
        key = ((key * 257 + bytes_TN[..., i].long() + 1) & _MASK) * _MULTIPLIER & _MASK
        key = key ^ (key >> 15)
    return key % num_rows


class NgramTables(nn.Module):
    """The sum over n of a learned row for the n bytes that end a byte string (cf. BLT's hash n-gram embeddings,
    Pagnoni et al. 2024, arXiv:2412.09871, section 3.2.1; here one row per patch position, at full width).

    Args:
        orders: the n, each at most the number of symbols that callers have at hand.
        num_rows: rows per table.
        width: D.
        row_width: numbers of a row, if they are not D; the sum of the rows is then projected to D.
    """

    def __init__(self, orders: Sequence[int], num_rows: int, width: int, row_width: int | None = None) -> None:
        super().__init__()
        self.orders, self.num_rows = tuple(orders), num_rows
        self.table: nn.Embedding | Int8Rows = embedding(len(self.orders) * num_rows, row_width or width)
        self.projection = Linear(row_width, width, bias=False) if row_width else nn.Identity()
        self._width = width
        self._orders: Tensor | None = None  # as the native core reads them

    def forward(self, bytes_BTN: Int[Tensor, "*B N"]) -> Float[Tensor, "*B D"]:
        """Sum of the rows of the n-grams that end at the last byte of each string of N bytes, at width D."""
        rows = [
            ngram_rows(bytes_BTN[..., bytes_BTN.shape[-1] - n :], self.num_rows) + i * self.num_rows
            for i, n in enumerate(self.orders)
        ]
        return self.projection(self.table(torch.stack(rows, dim=-1)).sum(dim=-2))

    def addresses(self, weights: Sequence[int], dtype: torch.dtype) -> TableAddresses | None:
        """Where the tables are, for the native core; None where it cannot read them.

        Args:
            weights: addresses of the weights of :func:`parts_of_tables`.
            dtype: that the rows are to have.
        """
        scales, known = 0, list(weights)
        if type(self.table) is Int8Rows and self.table.is_for_core(dtype):
            scales = self.table.scales_R.data_ptr()
            known.insert(0, self.table.codes_RD.data_ptr())
        has_projection = type(self.projection) is Linear
        if type(self) is not NgramTables or len(known) != 1 + has_projection:
            return None
        if self._orders is None:
            self._orders = torch.tensor(self.orders)
        row_width = self.projection.in_features if isinstance(self.projection, Linear) else self._width
        projection = known[1] if has_projection else 0
        orders = self._orders.data_ptr()
        return TableAddresses(known[0], scales, projection, orders, len(self.orders), self.num_rows, row_width)


def parts_of_tables(tables: NgramTables) -> list[nn.Embedding | Linear]:
    """Those parts whose weight the native core reads: rows that are not in int8, and a projection. None, unless it can
    read all.
    """
    parts: list[nn.Embedding | Linear] = []
    for part, unread in ((tables.table, Int8Rows), (tables.projection, nn.Identity)):
        if isinstance(part, nn.Embedding | Linear) and type(part) in (nn.Embedding, Linear):
            parts.append(part)
        elif type(part) is not unread:
            return []
    return parts if all(native.has_width(part.weight) for part in parts) else []


class Int8Rows(nn.Module):
    """The rows of a table in int8, as :func:`~bytelm.nn.int8_rows.round_rows` makes them.

    For inference: there is nothing to train.

    Args:
        table_RD: the rows that are rounded.
    """

    codes_RD: Tensor
    scales_R: Tensor

    def __init__(self, table_RD: Float[Tensor, "R D"]) -> None:
        super().__init__()
        self.dtype = table_RD.dtype
        codes_RD, scales_R = round_rows(table_RD)
        self.register_buffer("codes_RD", codes_RD)
        self.register_buffer("scales_R", scales_R)

    def is_for_core(self, dtype: torch.dtype) -> bool:
        """Whether the native core reads the rows as they lie, and they have this type."""
        where = {part.device.type for part in (self.codes_RD, self.scales_R)}
        return where == {"cpu"} and self.dtype == dtype and self.scales_R.dtype == torch.float32

    def forward(self, rows: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """Rows by their numbers, in the type that the table had."""
        return restore_rows(self.codes_RD[rows], self.scales_R[rows]).to(self.dtype)

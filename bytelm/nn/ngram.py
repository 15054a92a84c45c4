"""Hashed byte-n-gram tables: capacity that costs a row read per position and no matrix work."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.nn.embedding import embedding

_MULTIPLIER = 0x9E3779B1  # 2^32 / golden ratio: Fibonacci hashing (Knuth, TAOCP vol. 3, section 6.4)
_MASK = 0xFFFFFFFF
_TINY = torch.finfo(torch.float32).tiny
_ROWS_AT_ONCE = 1 << 16


def ngram_rows(bytes_TN: Int[Tensor, "*T N"], num_rows: int) -> Int[Tensor, "*T"]:
    """Row of the n-gram made of the last axis: a 32-bit multiplicative hash, the same on every platform.

    Without the reduction to ``num_rows`` it is injective for n <= 2, and from n = 3 on as good as a random function:
    of all 2^24 trigrams, 0.2 % share their 32-bit key. Collisions are the price of a small table anyway.
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
        orders: the n, each at most the number of bytes that callers have at hand.
        num_rows: rows per table.
        width: D.
    """

    def __init__(self, orders: Sequence[int], num_rows: int, width: int) -> None:
        super().__init__()
        self.orders, self.num_rows = tuple(orders), num_rows
        self.table: nn.Embedding | Int8Rows = embedding(len(self.orders) * num_rows, width)

    def forward(self, bytes_BTN: Int[Tensor, "*B N"]) -> Float[Tensor, "*B D"]:
        """Sum of the rows of the n-grams that end at the last byte of each string of N bytes."""
        rows = [
            ngram_rows(bytes_BTN[..., bytes_BTN.shape[-1] - n :], self.num_rows) + i * self.num_rows
            for i, n in enumerate(self.orders)
        ]
        return self.table(torch.stack(rows, dim=-1)).sum(dim=-2)


class Int8Rows(nn.Module):
    """The rows of a table in int8, each with a scale of its own: its largest number, in absolute value, becomes 127.

    For inference: there is nothing to train. A row of zeros has the scale 0.

    Args:
        table_RD: the rows that are rounded.
    """

    codes_RD: Tensor
    scales_R: Tensor

    def __init__(self, table_RD: Float[Tensor, "R D"]) -> None:
        super().__init__()
        codes_RD = torch.empty_like(table_RD, dtype=torch.int8)
        scales_R = torch.empty(len(table_RD), dtype=torch.float32, device=table_RD.device)
        self.dtype = table_RD.dtype
        for begin in range(0, len(table_RD), _ROWS_AT_ONCE):  # no second table in float32 beside the first
            rows = slice(begin, begin + _ROWS_AT_ONCE)
            some_RD = table_RD[rows].detach().float()
            scales_R[rows] = some_RD.abs().amax(-1) / 127
            codes_RD[rows] = (some_RD / scales_R[rows, None].clamp(min=_TINY)).round().to(torch.int8)
        self.register_buffer("codes_RD", codes_RD)
        self.register_buffer("scales_R", scales_R)

    def forward(self, rows: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """Rows by their numbers, in the type that the table had."""
        return (self.codes_RD[rows] * self.scales_R[rows][..., None]).to(self.dtype)

"""N-gram tables as the native core reads them, and the sums of their rows after a few windows in one call of it."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bytelm.nn import native


class TableAddresses(NamedTuple):
    """Where n-gram tables are, and how large: rows, scales of rows in int8 or 0, projection or 0, orders, keys of
    chosen n-grams or 0, number of orders, of rows of each, numbers of a row, and
    :attr:`bytelm.nn.matches.Matches.addresses` or None.
    """

    rows: int
    scales: int
    projection: int
    orders: int
    keys: int
    num_orders: int
    num_rows: int
    row_width: int
    matches: tuple[int, int, int, int, int] | None


def sum_rows(windows_BN: Int[Tensor, "*B N"], tables: TableAddresses, dtype: torch.dtype) -> Float[Tensor, "*B _"]:
    """The sum of the rows of the n-grams, and of the matches, that end each window; a row has the same result alone and
    among others.

    Args:
        windows_BN: at least as long as the longest n-gram.
        tables: whose projection is not read.
        dtype: of the rows, and of the result.
    """
    assert native.core is not None
    windows_BN = windows_BN.contiguous()
    sums = torch.empty(*windows_BN.shape[:-1], tables.row_width, dtype=dtype)
    num, window = sums.numel() // tables.row_width, windows_BN.shape[-1]
    native.core.sums(windows_BN.data_ptr(), tables, sums.data_ptr(), num, window, dtype == torch.float32)
    return sums

"""A merger on a few windows in one call of the native core. A row has the same result alone and among others."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bytelm.nn import native
from bytelm.nn.native_tables import TableAddresses


class MergerSizes(NamedTuple):
    """P, D, the width of an embedding and inside of the MLP (0: none), and symbols that have embeddings."""

    patch: int
    width: int
    byte_width: int
    inner: int
    num_symbols: int


def merge_windows(
    symbols_BN: Int[Tensor, "*B _"],
    addresses: Sequence[int],
    tables: TableAddresses | None,
    sizes: MergerSizes,
    dtype: torch.dtype,
) -> Float[Tensor, "*B D"]:
    """``projection(x) + down(silu(up(x)))`` + rows of n-grams, x the embeddings of the last P of some symbols.

    Args:
        symbols_BN: at least P; only those before the last P may be :data:`bytelm.nn.windows.ABSENT`.
        addresses: of embedding, projection and, where there is an MLP, up and down.
        tables: or None.
        sizes: of the merger.
        dtype: of its weights, and of the result.
    Raises:
        IndexError: a symbol has no embedding.
    """
    assert native.core is not None
    embedding, projection, up, down = (*addresses, 0, 0)[:4]
    symbols_BN = symbols_BN.contiguous()
    merged = torch.empty(*symbols_BN.shape[:-1], sizes.width, dtype=dtype)
    native.core.merge(
        symbols_BN.data_ptr(),
        embedding,
        projection,
        up,
        down,
        tables,
        merged.data_ptr(),
        symbols_BN.numel() // symbols_BN.shape[-1],
        symbols_BN.shape[-1],
        *sizes,
        dtype == torch.float32,
        torch.get_num_threads(),
    )
    return merged

"""Chained heads on a few states in one call of the native core: the logits of one, or symbols of all of them in turn.

A row has the same result alone and among others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from bytelm.nn import native
from bytelm.nn.native_tables import TableAddresses


class HeadSizes(NamedTuple):
    """Of an embedding, of sums of rows that MLPs read (0: they read none), and inside of the MLP; and V."""

    byte_width: int
    told_width: int
    inner: int
    vocab_size: int


def head_logits(
    h_BD: Float[Tensor, "*B D"],
    prefix_BN: Int[Tensor, "*B N"],
    added_BD: Float[Tensor, "*B D"] | None,
    told_B_: Float[Tensor, "*B _"] | None,
    addresses: Sequence[int],
    sizes: HeadSizes,
    num_symbols: int,
    eps: float,
) -> Float[Tensor, "*B V"]:
    """``unembedding norm(h + down silu(up (h, embeddings of the prefix, told)) + added)``.

    Args:
        h_BD: states, which :func:`bytelm.nn.native.takes` takes.
        prefix_BN: symbols.
        added_BD: or None; of the type of the states.
        told_B_: or None; the same.
        addresses: of embedding, norm, unembedding, and up and down, or 0.
        sizes: of the heads.
        num_symbols: that have embeddings.
        eps: of the norm.
    Raises:
        IndexError: the prefix has a symbol without an embedding.
    """
    assert native.core is not None
    embedding, norm, unembedding, up, down = addresses
    h_BD, prefix_BN = h_BD.contiguous(), prefix_BN.contiguous()
    batch = h_BD.shape[:-1]
    added_BD = None if added_BD is None else added_BD.expand(h_BD.shape).contiguous()
    told_B_ = None if told_B_ is None else told_B_.expand(*batch, sizes.told_width).contiguous()
    logits = h_BD.new_empty(*batch, sizes.vocab_size)
    width = h_BD.shape[-1]
    native.core.head(
        h_BD.data_ptr(),
        embedding,
        prefix_BN.data_ptr(),
        up,
        down,
        0 if added_BD is None else added_BD.data_ptr(),
        0 if told_B_ is None else told_B_.data_ptr(),
        norm,
        unembedding,
        logits.data_ptr(),
        h_BD.numel() // width,
        prefix_BN.shape[-1],
        width,
        *sizes,
        num_symbols,
        eps,
        h_BD.dtype == torch.float32,
        torch.get_num_threads(),
    )
    return logits


def draw_symbols(
    h_BRD: Float[Tensor, "B R D"],
    windows_BRN: Int[Tensor, "B R _"],
    prefix_BRN: Int[Tensor, "B R _"],
    noise_BNV: Float64[Tensor, "B _ V"] | None,
    temperature: float,
    addresses: Sequence[int],
    heads: tuple[int, ...],
    tables: TableAddresses | None,
    sizes: HeadSizes,
    eps: float,
) -> tuple[Int[Tensor, "B R K"], Float64[Tensor, "B R K"], Float[Tensor, "B R K V"]]:
    """The next K symbols of each state, -log p of each and the logits that it was chosen from: the argmax of ``logits /
    temperature + noise`` given those before it, the first of equals; without noise, of the logits.

    Args:
        h_BRD: states, which :func:`bytelm.nn.native.takes` takes.
        windows_BRN: symbols before each prefix.
        prefix_BRN: symbols that are known.
        noise_BNV: for each row, of the K symbols of each state one after the other.
        temperature: above 0.
        addresses: of embedding and norm.
        heads: unembedding, up and down of the head of each of the K symbols, one after the other; 0 where it has none.
        tables: of the heads, or None.
        sizes: of the heads, where every symbol of the vocabulary has an embedding.
        eps: of the norm.
    """
    assert native.core is not None
    num_rows, num_states, width = h_BRD.shape
    known, count = prefix_BRN.shape[-1], len(heads) // 3
    h_BRD, windows_BRN = h_BRD.contiguous(), windows_BRN.contiguous()
    symbols = prefix_BRN.new_empty(num_rows, num_states, known + count)
    if known:
        symbols[..., :known] = prefix_BRN
    logits = h_BRD.new_empty(count, num_rows, num_states, sizes.vocab_size)
    nats = h_BRD.new_empty(num_rows, num_states, count, dtype=torch.float64)
    if noise_BNV is not None and noise_BNV.stride()[1:] != (sizes.vocab_size, 1):
        noise_BNV = noise_BNV.contiguous()
    noise = (0, 0) if noise_BNV is None else (noise_BNV.data_ptr(), noise_BNV.stride(0))
    native.core.draw(
        h_BRD.data_ptr(),
        *addresses,
        heads,
        symbols.data_ptr(),
        tables,
        (windows_BRN.data_ptr(), windows_BRN.shape[-1]),
        (noise[0], num_states, noise[1]),
        logits.data_ptr(),
        nats.data_ptr(),
        num_rows * num_states,
        known,
        count,
        width,
        *sizes,
        temperature,
        eps,
        h_BRD.dtype == torch.float32,
        torch.get_num_threads(),
    )
    return symbols[..., known:], nats, logits.movedim(0, 2)

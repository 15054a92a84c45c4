"""The blocks of a body of a few rows in one call of the native core.

While symbols are generated a model of some million parameters spends more time between operations of torch than in
them. A row has the same result alone and among others.
"""

import math

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bytelm.nn import native
from bytelm.nn.block import SequentialBlock
from bytelm.nn.document_view import DocumentView
from bytelm.nn.feedforward import SwiGLU
from bytelm.nn.fused import FusedLinear
from bytelm.nn.known_modules import Knowledge
from bytelm.nn.kv_cache import CacheView
from bytelm.nn.linear import Linear
from bytelm.nn.norm import RMSNorm
from bytelm.nn.position import Rotary
from bytelm.shapes import Hidden


def run_blocks(
    blocks: nn.ModuleList,
    position: nn.Module,
    x_BTD: Hidden,
    positions: Int[Tensor, "*_ T"],
    view: CacheView | DocumentView | None,
) -> Hidden:
    """The stream after all blocks of a body: each in turn, or all of them in the native core.

    The core takes few rows (:func:`bytelm.nn.native.takes`) of Llama's blocks with rotary positions and without biases,
    whose weights are as they were trained, that see the slots of a cache; and none where a part of them is hooked.

    Args:
        blocks: of the body.
        position: how attention knows where a position is.
        x_BTD: the stream before them.
        positions: of the stream, which the view has, too.
        view: as for :meth:`bytelm.model.byte_lm.ByteLM.forward`.
    """
    if native.takes(x_BTD) and type(view) is CacheView and type(position) is Rotary:
        addresses = _BODIES.addresses(blocks, x_BTD.dtype)
        if addresses is not None and _is_packed(view, x_BTD.dtype):
            return _in_core(addresses, blocks, position, x_BTD, view)
    places = position(positions, None if view is None else view.mask_B1TS)
    for block in blocks:
        x_BTD = block(x_BTD, places, view)
    return x_BTD


def has_core(blocks: nn.ModuleList) -> bool:
    """Whether the core is there and reads such blocks once their matrices are stored by rows."""
    if native.core is None:
        return False
    found = _parts_of_body(blocks)
    return found is not None and all(native.has_width(part.weight) for part in found)


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a product with its weight and no more: nobody has put another in its place."""
    return type(layer) in (Linear, FusedLinear) and layer.bias is None


def _parts_of_body(blocks: nn.Module) -> list[RMSNorm | Linear] | None:
    """The six modules with weights of each block of Llama's, in the order of the core; None of others."""
    found: list[RMSNorm | Linear] = []
    for block in blocks.children():
        if type(block) is not SequentialBlock:
            return None
        attention, feedforward = block.attention, block.feedforward
        first, second = block.attention_norm, block.feedforward_norm
        if type(feedforward) is not SwiGLU or type(first) is not RMSNorm or type(second) is not RMSNorm:
            return None
        layers = attention.query_key_value, attention.output, feedforward.gate_up, feedforward.down
        if not all(is_plain(layer) for layer in layers):
            return None
        found += first, *layers[:2], second, *layers[2:]
    return found or None


_BODIES = Knowledge(_parts_of_body)


def _is_packed(view: CacheView, dtype: torch.dtype) -> bool:
    """Whether the cache lies as the core reads it."""
    keys = view.cache.keys[0]
    parts = (*view.cache.keys, *view.cache.values)
    if keys.dtype != dtype or keys.device.type != "cpu" or keys.shape[-1] % native.STEP:
        return False
    return all(part.is_contiguous() for part in parts)


def _in_core(
    addresses: tuple[int, ...], blocks: nn.ModuleList, position: Rotary, x_BTD: Hidden, view: CacheView
) -> Hidden:
    assert native.core is not None
    first, cache, rows = blocks[0], view.cache, view.rows
    assert isinstance(first, SequentialBlock)
    assert isinstance(first.attention_norm, RMSNorm)
    assert isinstance(first.feedforward_norm, RMSNorm)
    assert isinstance(first.feedforward, SwiGLU)
    attention, (batch, steps, width) = first.attention, x_BTD.shape
    positions = view.positions.expand(batch, steps).contiguous()
    last = positions if view.last_seen is view.positions else view.last_seen.expand(batch, steps).contiguous()
    frequencies = position.frequencies(x_BTD.device)
    x_BTD = x_BTD.clone(memory_format=torch.contiguous_format)
    rows = None if rows is None else rows.contiguous()
    caches = [address for pair in zip(cache.keys, cache.values, strict=True) for address in map(Tensor.data_ptr, pair)]
    native.core.body(
        tuple([a for i in range(len(blocks)) for a in (*addresses[6 * i : 6 * i + 6], *caches[2 * i : 2 * i + 2])]),
        x_BTD.data_ptr(),
        0 if rows is None else rows.data_ptr(),
        positions.data_ptr(),
        last.data_ptr(),
        frequencies.data_ptr(),
        batch,
        steps,
        width,
        attention.num_heads,
        attention.num_kv_heads,
        attention.head_width,
        position.width,
        first.feedforward.gate_up.parts[0],
        view.num_slots,
        cache.capacity,
        cache.num_rows,
        first.attention_norm.eps,
        first.feedforward_norm.eps,
        1 / math.sqrt(attention.head_width) if attention.scale is None else attention.scale,
        x_BTD.dtype == torch.float32,
        torch.get_num_threads(),
    )
    return x_BTD

"""The blocks of a body, and a chained head, of a few rows in one call of the native core each.

While symbols are generated a model of some million parameters spends more time between operations of torch than in
them. A row has the same result alone and among others. Nothing here is for ``torch.compile``, which fuses what lies
between products itself.
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.nn import native
from bytelm.nn.block import SequentialBlock
from bytelm.nn.document_view import DocumentView
from bytelm.nn.feedforward import SwiGLU
from bytelm.nn.fused import FusedLinear
from bytelm.nn.kv_cache import CacheView
from bytelm.nn.linear import Linear
from bytelm.nn.norm import RMSNorm
from bytelm.nn.position import Places
from bytelm.shapes import Hidden

_TYPES = (torch.bfloat16, torch.float32)


def run_blocks(blocks: nn.ModuleList, x_BTD: Hidden, places: Places, view: CacheView | DocumentView | None) -> Hidden:
    """The stream after all blocks of a body: each in turn, or all of them in the native core.

    The core takes few rows (see :func:`takes`) of Llama's blocks without biases, whose weights are as they were
    trained, that see the slots of a cache; and none where somebody hooks a part of a block.
    """
    if isinstance(view, CacheView) and takes(x_BTD):
        weights = _weights(blocks, x_BTD.dtype)
        if weights is not None and _sees(places, view, x_BTD.dtype):
            return _in_core(blocks, weights, x_BTD, places, view)
    for block in blocks:
        x_BTD = block(x_BTD, places, view)
    return x_BTD


def takes(x: Float[Tensor, "*B D"]) -> bool:
    """Whether the core is for these vectors: bfloat16 as :func:`bytelm.nn.native.is_for_core` has it, and up to
    :data:`bytelm.nn.native.FEW_ROWS` of float32; on the CPU, where no gradient is asked for and nothing is compiled.
    """
    if native.core is None or torch.compiler.is_compiling() or torch.is_grad_enabled() or type(x) is not Tensor:
        return False
    rows = x.numel() // x.shape[-1]
    if x.dtype == torch.float32:
        return 0 < rows <= native.FEW_ROWS and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return rows > 0 and native.is_for_core(rows, x)


def fits(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether the core reads a weight as it lies: a vector, or a matrix stored by rows, of widths that it knows."""
    return type(weight) is nn.Parameter and weight.dtype == dtype and weight.is_contiguous() and _has_width(weight)


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a product with its weight and no more: nobody has put another in its place."""
    return type(layer) in (Linear, FusedLinear) and layer.bias is None


def has_core(blocks: nn.ModuleList) -> bool:
    """Whether the core is there and reads such blocks once their matrices are stored by rows."""
    if native.core is None:
        return False
    found = [_parts(block) for block in blocks]
    return all(parts is not None and all(map(_has_width, parts)) for parts in found)


def is_hooked(modules: Iterable[nn.Module]) -> bool:
    """Whether somebody waits for the call of one of these."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def head_logits(
    h_BD: Float[Tensor, "*B D"],
    added_BD: Float[Tensor, "*B D"] | None,
    prefix_BN: Int[Tensor, "*B N"],
    embedding: Tensor,
    norm: RMSNorm,
    unembedding: Tensor,
    up: Tensor | None = None,
    down: Tensor | None = None,
) -> Float[Tensor, "*B V"]:
    """``unembedding norm(h + down silu(up (h, embeddings of the prefix)) + added)``, for what :func:`takes` takes.

    Raises:
        IndexError: the prefix has a symbol without an embedding.
    """
    assert native.core is not None
    known, dtype = prefix_BN.shape[-1], h_BD.dtype
    h_BD, prefix_BN = h_BD.contiguous(), prefix_BN.to(torch.int64).contiguous()
    logits = h_BD.new_empty(*h_BD.shape[:-1], len(unembedding))
    added = None if added_BD is None else added_BD.to(dtype).expand(h_BD.shape).contiguous()
    native.core.head(
        h_BD.data_ptr(),
        embedding.data_ptr(),
        prefix_BN.data_ptr(),
        0 if up is None else up.data_ptr(),
        0 if down is None else down.data_ptr(),
        0 if added is None else added.data_ptr(),
        norm.weight.data_ptr(),
        unembedding.data_ptr(),
        logits.data_ptr(),
        h_BD.numel() // h_BD.shape[-1],
        known,
        h_BD.shape[-1],
        embedding.shape[1],
        1 if up is None else len(up),
        len(unembedding),
        len(embedding),
        norm.eps,
        dtype == torch.float32,
        torch.get_num_threads(),
    )
    return logits


def _weights(blocks: nn.ModuleList, dtype: torch.dtype) -> list[tuple[Tensor, ...]] | None:
    """:func:`_parts` of each block; None where the core cannot read one, or somebody waits for it to be called."""
    weights = []
    for block in blocks:
        parts = _parts(block)
        if parts is None or not all(fits(part, dtype) for part in parts) or is_hooked(block.modules()):
            return None
        weights.append(parts)
    return weights or None


def _parts(block: nn.Module) -> tuple[Tensor, ...] | None:
    """The six weights of a block of Llama's in the order of the core; None of another."""
    if not isinstance(block, SequentialBlock):
        return None
    attention, feedforward = block.attention, block.feedforward
    norms = block.attention_norm, block.feedforward_norm
    if not isinstance(feedforward, SwiGLU) or not all(isinstance(norm, RMSNorm) for norm in norms):
        return None
    layers = attention.query_key_value, attention.output, feedforward.gate_up, feedforward.down
    if not all(map(is_plain, layers)):
        return None
    query_key_value, output, gate_up, down = (layer.weight for layer in layers)
    before_attention, before_feedforward = (norm.weight for norm in norms if isinstance(norm, RMSNorm))
    return before_attention, query_key_value, output, before_feedforward, gate_up, down


def _has_width(weight: Tensor) -> bool:
    return weight.dim() == 1 or (weight.shape[0] >= native.LEAST and weight.shape[1] % native.STEP == 0)


def _sees(places: Places, view: CacheView, dtype: torch.dtype) -> bool:
    """Whether positions turn queries and keys, and the cache lies as the core reads it."""
    keys = view.cache.keys[0]
    if places.angles is None or not isinstance(places.mask, Tensor) or places.mask.dtype != torch.bool:
        return False
    plain = keys.dtype == dtype and all(part.is_contiguous() for part in (*view.cache.keys, *view.cache.values))
    return plain and keys.shape[-1] % native.STEP == 0


def _in_core(
    blocks: nn.ModuleList, weights: list[tuple[Tensor, ...]], x_BTD: Hidden, places: Places, view: CacheView
) -> Hidden:
    assert native.core is not None
    assert places.angles is not None
    assert isinstance(places.mask, Tensor)
    first, cache = blocks[0], view.cache
    assert isinstance(first, SequentialBlock)
    assert isinstance(first.attention_norm, RMSNorm)
    assert isinstance(first.feedforward_norm, RMSNorm)
    attention = first.attention
    (batch, steps, width), slots = x_BTD.shape, view.num_slots
    rows, positions = view.rows, view.positions.expand(batch, steps).contiguous()
    mask = places.mask.expand(batch, 1, steps, slots).contiguous()
    cos, sin = (part.expand(batch, 1, steps, -1).contiguous() for part in places.angles)
    x_BTD = x_BTD.clone(memory_format=torch.contiguous_format)
    rows = None if rows is None else rows.contiguous()
    caches = zip(weights, cache.keys, cache.values, strict=True)
    native.core.body(
        tuple(part.data_ptr() for parts, *both in caches for part in (*parts, *both)),
        x_BTD.data_ptr(),
        0 if rows is None else rows.data_ptr(),
        *(part.data_ptr() for part in (positions, mask, cos, sin)),
        batch,
        steps,
        width,
        attention.num_heads,
        attention.num_kv_heads,
        attention.head_width,
        cos.shape[-1],
        weights[0][5].shape[1],
        slots,
        cache.capacity,
        cache.num_rows,
        cos.stride(0),
        cos.stride(2),
        first.attention_norm.eps,
        first.feedforward_norm.eps,
        1 / math.sqrt(attention.head_width) if attention.scale is None else attention.scale,
        x_BTD.dtype == torch.float32,
        torch.get_num_threads(),
    )
    return x_BTD

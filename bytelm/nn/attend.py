"""Scores, softmax and values: attention without its linear layers. On the CPU in bfloat16 through a native core."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from bytelm.nn import native
from bytelm.nn.blocked_attention import blocked_attention, is_blocked
from bytelm.nn.document_view import FlexMask
from bytelm.nn.widened import is_widened, widened_attention


def attend(
    q_BHTE: Float[Tensor, "B H T E"],
    k_BGSE: Float[Tensor, "B G S E"],
    v_BGSE: Float[Tensor, "B G S E"],
    mask: Bool[Tensor, "B 1 T S"] | Float[Tensor, "*_ T S"] | FlexMask | None,
    scale: float | None = None,
) -> Float[Tensor, "B H T E"]:
    """``softmax(scale q k^T + mask) v``: :func:`torch.nn.functional.scaled_dot_product_attention`, or the native core.

    In the native core all sums are float32, in the order of the slots, and are rounded once: a query has the same
    result alone and among others, and however many slots there are that it does not see.

    Args:
        q_BHTE: queries.
        k_BGSE, v_BGSE: keys and values; H / G heads of queries share one of theirs.
        mask: what is seen, or what is added to the scores, or what FlexAttention runs with; None: each query sees the
            slots up to its own.
        scale: of the scores; default ``1 / sqrt(E)``.
    """
    if isinstance(mask, FlexMask):
        return mask.attend(q_BHTE, k_BGSE, v_BGSE, scale)
    if mask is not None and mask.dtype == torch.bool and _fits(q_BHTE, k_BGSE, v_BGSE):
        scale = 1 / math.sqrt(q_BHTE.shape[-1]) if scale is None else scale
        return _rows_attention(q_BHTE, k_BGSE, v_BGSE, mask, scale)
    if mask is None and is_blocked(q_BHTE, k_BGSE, v_BGSE):
        return blocked_attention(q_BHTE, k_BGSE, v_BGSE, 1 / math.sqrt(q_BHTE.shape[-1]) if scale is None else scale)
    compute = widened_attention if is_widened(q_BHTE, k_BGSE, v_BGSE) else F.scaled_dot_product_attention
    return compute(q_BHTE, k_BGSE, v_BGSE, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True)


def _fits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the native core takes these: slots must follow each other in memory."""
    if not native.is_for_core(q.shape[2], q, k, v):
        return False
    width = k.shape[-1]
    packed = all(part.stride(-1) == 1 and part.stride(-2) == width for part in (k, v))
    return packed and width % native.STEP == 0


def _run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    assert native.core is not None
    (batch, heads, queries, width), (kv_heads, slots) = q.shape, k.shape[1:3]
    seen = mask.expand(batch, 1, queries, slots).contiguous()
    q, y = q.contiguous(), q.new_empty(q.shape)
    sizes = (batch, heads, kv_heads, queries, slots, width)
    strides = (*k.stride()[:2], *v.stride()[:2])
    addresses = (tensor.data_ptr() for tensor in (q, k, v, seen, y))
    native.core.attention(*addresses, *sizes, *strides, scale, torch.get_num_threads())
    return y


def _shape(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    return q.new_empty(q.shape)


_rows_attention = native.register(
    "rows_attention", "(Tensor q, Tensor k, Tensor v, Tensor mask, float scale) -> Tensor", _run, _shape
)

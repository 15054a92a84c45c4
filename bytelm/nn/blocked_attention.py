"""Causal attention that trains in bfloat16 on CPUs that multiply it: matrix products over a block of queries at a time.

torch's kernel for that (flash attention) takes twice as long there as its products would, most of it in the backward
pass. As in flash attention (Dao et al. 2022, arXiv:2205.14135, section 3.1) the backward pass makes the weights anew,
so that memory is that of one block. Queries that were scaled, scores and weights are rounded to bfloat16; the softmax
and sums of blocks are float32.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bytelm.nn.widened import has_unit, trains_in_bfloat16

_BLOCK = 64
"""Queries of a block; slots after its last query are not multiplied."""


def is_blocked(*tensors: Tensor) -> bool:
    """Whether attention of these trains in bfloat16 on a CPU that multiplies it."""
    return has_unit and torch.is_grad_enabled() and trains_in_bfloat16(*tensors)


def blocked_attention(
    q: Float[Tensor, "B H T E"], k: Float[Tensor, "B G T E"], v: Float[Tensor, "B G T E"], scale: float
) -> Float[Tensor, "B H T E"]:
    """``softmax(scale q k^T) v`` of numbers rounded to bfloat16, each query seeing the slots up to its own.

    H / G heads of queries share one of keys and values, the first ones the first.
    """
    parts = (part.to(torch.bfloat16) for part in (q, k, v))
    found: Tensor = _Blocked.apply(*parts, scale)
    return found


class _Block(NamedTuple):
    """Queries of a block by heads of keys: rows of one product, g heads below each other."""

    begin: int
    end: int
    hidden: Bool[Tensor, "T T"]

    def rows(self, x: Float[Tensor, "B H T E"], num_kv_heads: int) -> Float[Tensor, "_ _ E"]:
        """Those of ``x``."""
        part = x[:, :, self.begin : self.end]
        return part.reshape(len(x) * num_kv_heads, -1, x.shape[-1])

    def weights(self, rows: Tensor, keys: Tensor) -> Float[Tensor, "_ _ T S"]:
        """The softmax of the scores of scaled queries, in float32."""
        scores = torch.bmm(rows, keys[:, : self.end].transpose(1, 2)).unflatten(1, (-1, self.end - self.begin))
        scores[..., self.begin :].masked_fill_(self.hidden, -torch.inf)
        return scores.softmax(-1, dtype=torch.float32)


def _blocks(num_queries: int, device: torch.device) -> Iterator[_Block]:
    for begin in range(0, num_queries, _BLOCK):
        end = min(begin + _BLOCK, num_queries)
        hidden = torch.ones(end - begin, end - begin, dtype=torch.bool, device=device).triu_(1)
        yield _Block(begin, end, hidden)


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        keys, values, scaled = k.flatten(0, 1), v.flatten(0, 1), q * scale
        y = torch.empty_like(q, memory_format=torch.contiguous_format)
        with torch.autocast("cpu", enabled=False):
            for block in _blocks(q.shape[2], q.device):
                weights = block.weights(block.rows(scaled, k.shape[1]), keys).to(q.dtype).flatten(1, 2)
                out = torch.bmm(weights, values[:, : block.end])
                y[:, :, block.begin : block.end] = out.view(*q.shape[:2], -1, q.shape[3])
        ctx.save_for_backward(scaled, k, v)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v, from weights that are computed again, block by block."""
        q, k, v = ctx.saved_tensors  # q is scaled
        keys, values, num_kv_heads = k.flatten(0, 1), v.flatten(0, 1), k.shape[1]
        of_q = torch.empty_like(q, memory_format=torch.contiguous_format)
        of_keys, of_values = torch.zeros_like(keys, dtype=torch.float32), torch.zeros_like(values, dtype=torch.float32)
        with torch.autocast("cpu", enabled=False):
            for block in _blocks(q.shape[2], q.device):
                rows, g = block.rows(q, num_kv_heads), block.rows(grads[0], num_kv_heads)
                weights = block.weights(rows, keys)
                of_values[:, : block.end] += torch.bmm(weights.to(g.dtype).flatten(1, 2).transpose(1, 2), g)
                of_weights = torch.bmm(g, values[:, : block.end].transpose(1, 2)).float().view_as(weights)
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).to(q.dtype)
                of_scores = of_scores.flatten(1, 2)
                part = torch.bmm(of_scores, keys[:, : block.end]).mul_(ctx.scale)
                of_q[:, :, block.begin : block.end] = part.view(*q.shape[:2], -1, q.shape[3])
                of_keys[:, : block.end] += torch.bmm(of_scores.transpose(1, 2), rows)
        return of_q, of_keys.to(k.dtype).view_as(k), of_values.to(v.dtype).view_as(v), None

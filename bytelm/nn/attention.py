"""Grouped-query self-attention over positions (Ainslie et al. 2023, arXiv:2305.13245)."""

from torch import Tensor, nn

from bytelm.nn.attend import attend
from bytelm.nn.document_view import DocumentView
from bytelm.nn.fused import FusedLinear
from bytelm.nn.kv_cache import CacheView
from bytelm.nn.linear import Linear
from bytelm.nn.position import Places
from bytelm.nn.rotary import rotate
from bytelm.shapes import Hidden


class Attention(nn.Module):
    """Causal attention; H query heads share G key/value heads.

    Args:
        width: D.
        num_heads, num_kv_heads: H and G.
        head_width: E.
        bias, output_bias: of queries, keys and values, and of the output.
        scale: of the scores; default ``1 / sqrt(E)``.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_kv_heads: int,
        head_width: int,
        *,
        bias: bool = False,
        output_bias: bool = False,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_width = num_heads, num_kv_heads, head_width
        self.scale = scale
        self.query_key_value = FusedLinear(
            width, ((num_heads + num_kv_heads) * head_width, num_kv_heads * head_width), bias=bias
        )
        self.output = Linear(num_heads * head_width, width, bias=output_bias)

    def forward(self, x_BTD: Hidden, places: Places, block: int, view: CacheView | DocumentView | None) -> Hidden:
        """Attend to what the places show: positions of ``x`` when ``view`` is None, else those of the cache rows."""
        queries_keys, values = self.query_key_value(x_BTD)
        turned, v_BGTE = self._by_head(queries_keys), self._by_head(values)
        if places.angles is not None:
            turned = rotate(turned, *places.angles)
        q_BHTE, k_BGTE = turned.split((self.num_heads, self.num_kv_heads), dim=1)
        mask = places.mask
        if view is not None:
            k_BGTE, v_BGTE = view.extend(block, k_BGTE, v_BGTE)
            k_BGTE, v_BGTE = k_BGTE.to(q_BHTE.dtype), v_BGTE.to(q_BHTE.dtype)
        if isinstance(mask, Tensor) and mask.is_floating_point():
            mask = mask.to(q_BHTE.dtype)
        y_BHTE = attend(q_BHTE, k_BGTE, v_BGTE, mask, self.scale)
        return self.output(y_BHTE.transpose(1, 2).flatten(2))

    def _by_head(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

"""Grouped-query self-attention over patch positions (Ainslie et al. 2023, arXiv:2305.13245)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bytelm.nn.fused import FusedLinear
from bytelm.nn.kv_cache import CacheView
from bytelm.nn.rotary import rotate
from bytelm.shapes import Hidden

Angles = tuple[Float[Tensor, "*B 1 T E"], Float[Tensor, "*B 1 T E"]]


class Attention(nn.Module):
    """Causal attention with rotary positions; H query heads share G key/value heads."""

    def __init__(self, width: int, num_heads: int, num_kv_heads: int, head_width: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_width = num_heads, num_kv_heads, head_width
        self.query_key_value = FusedLinear(width, ((num_heads + num_kv_heads) * head_width, num_kv_heads * head_width))
        self.output = nn.Linear(num_heads * head_width, width, bias=False)

    def forward(self, x_BTD: Hidden, angles: Angles, block: int, view: CacheView | None) -> Hidden:
        """Attend to all earlier positions: those of ``x`` when ``view`` is None, else those of the cache rows."""
        queries_keys, values = self.query_key_value(x_BTD)
        turned = rotate(self._by_head(queries_keys), *angles)
        q_BHTE, k_BGTE = turned.split((self.num_heads, self.num_kv_heads), dim=1)
        v_BGTE = self._by_head(values)
        mask = None
        if view is not None:
            k_BGTE, v_BGTE = view.extend(block, k_BGTE, v_BGTE)
            k_BGTE, v_BGTE, mask = k_BGTE.to(q_BHTE.dtype), v_BGTE.to(q_BHTE.dtype), view.mask_B1TS
        y_BHTE = F.scaled_dot_product_attention(
            q_BHTE, k_BGTE, v_BGTE, attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )
        return self.output(y_BHTE.transpose(1, 2).flatten(2))

    def _by_head(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

"""Heads that see the state alone."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.nn.linear import Linear, linear
from bytelm.shapes import Hidden


class IndependentHeads(nn.Module):
    """K linear heads on a state; p(patch | h) is their product (Gloeckle et al. 2024, arXiv:2404.19737, section 2)."""

    def __init__(self, width: int, vocab_size: int, num_heads: int) -> None:
        super().__init__()
        self.vocab_size, self.num_heads = vocab_size, num_heads
        self.unembedding = Linear(width, num_heads * vocab_size, bias=False)

    def forward(
        self, h_BTD: Hidden, windows_BT_: Int[Tensor, "B T _"], targets_BTK: Int[Tensor, "B T K"]
    ) -> Float[Tensor, "B T K V"]:
        """Logits of all heads. Windows and targets are not looked at."""
        return self.unembedding(h_BTD).unflatten(-1, (self.num_heads, self.vocab_size))

    def step(
        self, h_BD: Float[Tensor, "*B D"], window_BP: Int[Tensor, "*B P"], prefix_BN: Int[Tensor, "*B N"]
    ) -> Float[Tensor, "*B V"]:
        """Logits of head N + 1, which follows a prefix of N bytes of the patch."""
        n = prefix_BN.shape[-1]
        rows = slice(n * self.vocab_size, (n + 1) * self.vocab_size)
        return linear(h_BD, self.unembedding.weight[rows])

"""The head of a model of one symbol at a time."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.nn.linear import Linear
from bytelm.shapes import Hidden


class LMHead(nn.Module):
    """One linear head (K = 1) on the state: the law of the next symbol.

    The table may have more rows than there are symbols; the law is one over the symbols alone, so that a row without a
    symbol is never emitted.

    Args:
        width: D.
        num_rows: rows of the table.
        vocab_size: V, how many of them, from the first on, are symbols.
        bias: whether it has one.
        scale: of the logits.
    """

    def __init__(
        self,
        width: int,
        num_rows: int,
        vocab_size: int,
        *,
        bias: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.vocab_size, self.scale = vocab_size, scale
        self.unembedding = Linear(width, num_rows, bias=bias)

    def forward(
        self, h_BTD: Hidden, windows_BT_: Int[Tensor, "B T _"], targets_BTK: Int[Tensor, "B T K"]
    ) -> Float[Tensor, "B T 1 V"]:
        """Logits of the symbol after each state. Windows and targets are not looked at."""
        return self.logits(h_BTD)[:, :, None]

    def step(
        self, h_BD: Float[Tensor, "*B D"], window_BP: Int[Tensor, "*B P"], prefix_BN: Int[Tensor, "*B N"]
    ) -> Float[Tensor, "*B V"]:
        """Logits of the symbol after each state."""
        return self.logits(h_BD)

    def logits(self, h: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Logits of the symbol after each state."""
        logits = self.unembedding(h)[..., : self.vocab_size]
        return logits if self.scale == 1.0 else logits * self.scale

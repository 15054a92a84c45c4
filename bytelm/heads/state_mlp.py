"""What rows of n-grams change in the state of a model of tokens."""

from jaxtyping import Float
from torch import Tensor, nn

from bytelm.heads.chained import PrefixMLP


class StateMLP(nn.Module):
    """The MLP of chained heads that mix, before any symbol of a patch, behind a norm: ``mlp(norm(x), rows)``.

    Args:
        inputs: D and the numbers of a row.
        width: D.
        inner: inner width of the MLP.
        norm: of the stream, which has none before it; the states that chained heads read have one.
    """

    def __init__(self, inputs: int, width: int, inner: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.mlp = norm, PrefixMLP(inputs, width, inner)

    def forward(self, x: Float[Tensor, "*B D"], rows: Float[Tensor, "*B F"]) -> Float[Tensor, "*B D"]:
        """The change, to be added to the stream."""
        return self.mlp(self.norm(x), rows)

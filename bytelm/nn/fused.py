"""Linear layers of one input as one product."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from bytelm.nn.linear import Linear


class FusedLinear(Linear):
    """Several linear layers that read the same input: their weights under each other, one product.

    Args:
        width: of the input.
        parts: the output width of each layer.
        bias: whether they have biases.
    """

    def __init__(self, width: int, parts: Sequence[int], *, bias: bool = False) -> None:
        super().__init__(width, sum(parts), bias=bias)
        self.parts = tuple(parts)

    def forward(self, x: Float[Tensor, "*B D"]) -> tuple[Float[Tensor, "*B _"], ...]:  # type: ignore[override]
        """The output of each layer."""
        return super().forward(x).split(self.parts, dim=-1)

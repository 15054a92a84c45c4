"""Linear layers of one input as one product."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class FusedLinear(nn.Linear):
    """Several linear layers without bias that read the same input: their weights under each other, one product.

    Args:
        width: of the input.
        parts: the output width of each layer.
    """

    def __init__(self, width: int, parts: Sequence[int]) -> None:
        super().__init__(width, sum(parts), bias=False)
        self.parts = tuple(parts)

    def forward(self, x: Float[Tensor, "*B D"]) -> tuple[Float[Tensor, "*B _"], ...]:  # type: ignore[override]
        """The output of each layer."""
        return super().forward(x).split(self.parts, dim=-1)

"""Several optimisers as one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class CombinedOptimizer(Optimizer):
    """Optimisers for different parameters as one, which share its parameter groups and its state.

    Args:
        inner: the optimisers; all have to be fresh.
    """

    def __init__(self, inner: Sequence[Optimizer]) -> None:
        self.inner = tuple(inner)
        super().__init__([group for optimizer in self.inner for group in optimizer.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each, after one call of ``closure``, whose result is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.inner:
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of all."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        begin = 0
        for optimizer in self.inner:
            end = begin + len(optimizer.param_groups)
            optimizer.state, optimizer.param_groups = self.state, self.param_groups[begin:end]
            begin = end

"""What drafters share, and the one that proposes nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding.protocols import Draft, Round, Target


class StatelessDrafter:
    """A drafter that remembers nothing between rounds."""

    name = "none"
    max_draft = 0

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Nothing to prepare."""

    def join(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Nothing is kept by row."""

    def select(self, rows: NDArray[np.int64]) -> None:
        """Nothing is kept by row."""

    def observe(self, accepted: NDArray[np.int64], seconds: float) -> None:
        """Nothing is learnt."""


class NoDrafter(StatelessDrafter):
    """Propose nothing: one unit a forward, a symbol for laws that verify and a patch for those that need no draft."""

    def propose(self, round_: Round) -> Draft:
        """Draft (B, 0)."""
        return Draft(round_.emitted[:, :0])

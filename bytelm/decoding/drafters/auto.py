"""Choose the drafter that pays, on line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding.drafters.base import NoDrafter
from bytelm.decoding.protocols import Draft, Drafter, Round, Target

_TRIALS = 3
_MEMORY = 0.15
_FIRST_WAIT, _LAST_WAIT = 24, 512


class _Arm:
    """One drafter at one draft width: what a round with it cost and gave, as running averages.

    Attributes:
        rounds: rounds so far; the first one is not counted in, for it may pay for warming up.
        seconds, symbols: of a round; symbols per row.
        wait, due: rounds until it is tried again, and when.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self.seconds = self.symbols = 0.0
        self.wait, self.due = _FIRST_WAIT, 0

    def enter(self, symbols: float, seconds: float) -> None:
        """Enter one round."""
        self.rounds += 1
        if self.rounds <= 2:
            self.seconds, self.symbols = seconds, symbols
            return
        # A round that the machine was busy elsewhere in says nothing about the drafter.
        self.seconds += _MEMORY * (min(seconds, 3 * self.seconds) - self.seconds)
        self.symbols += _MEMORY * (symbols - self.symbols)

    @property
    def rate(self) -> float:
        """Symbols per row and second; infinite until it was tried often enough."""
        return self.symbols / self.seconds if self.rounds >= _TRIALS else float("inf")


Memory = dict[tuple[str, int, int], _Arm]
"""What was learnt, by drafter, width of the draft and size of the batch (its power of two)."""


class AutoDrafter:
    """Use, in each round, the drafter that has lately given the most symbols per second, or none.

    Every drafter that proposes something gets a few rounds; then the one of the best rate is used. What a round costs,
    drafting and verifying at its width, is measured, and so is what it gives. One that loses is tried again now and
    then, ever more seldom, since texts change. The output does not depend on the choice; only time does.

    Args:
        drafters: to choose from; proposing nothing is always a choice.
        memory: what earlier runs on this machine have learnt; it is added to.
    """

    name = "auto"

    def __init__(self, drafters: Sequence[Drafter], memory: Memory | None = None) -> None:
        self.drafters: list[Drafter] = [NoDrafter(), *drafters]
        self._arms: Memory = {} if memory is None else memory
        self._used: _Arm | None = None
        self._round = 0

    @property
    def max_draft(self) -> int:
        """The widest draft of any drafter."""
        return max(drafter.max_draft for drafter in self.drafters)

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Begin a run with every drafter."""
        for drafter in self.drafters:
            drafter.start(prompts, max_new, target)
        self._used = None

    def propose(self, round_: Round) -> Draft:
        """The draft of the drafter chosen for this round."""
        self._round += 1
        batch = len(round_.counts).bit_length()
        ranked = sorted(self.drafters, key=lambda drafter: self._promise(drafter, batch), reverse=True)
        for drafter in ranked:
            draft = drafter.propose(round_)
            if draft.symbols.shape[1] or isinstance(drafter, NoDrafter):
                self._used = self._arms.setdefault((drafter.name, draft.symbols.shape[1], batch), _Arm())
                return draft
        raise AssertionError("proposing nothing is always a choice")

    def select(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows of the batch, in this order."""
        for drafter in self.drafters:
            drafter.select(rows)

    def observe(self, accepted: NDArray[np.int64], seconds: float) -> None:
        """Learn what the last round cost and gave."""
        if self._used is None or not len(accepted):
            return
        self._used.enter(float(accepted.mean()), seconds)

    def _promise(self, drafter: Drafter, batch: int) -> float:
        """The best rate of the drafter's widths; infinite where one is due to be tried."""
        arms = [arm for (name, _, size), arm in self._arms.items() if (name, size) == (drafter.name, batch)]
        if not arms:
            return float("inf")
        best = max(arms, key=lambda arm: arm.rate)
        if self._round >= best.due > 0:
            best.due, best.wait = self._round + best.wait, min(2 * best.wait, _LAST_WAIT)
            return float("inf")
        if best.due == 0 and best.rounds >= _TRIALS:
            best.due = self._round + best.wait
        return best.rate

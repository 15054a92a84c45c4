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
    """One drafter, or one draft width of it: what a round with it cost and gave, as running averages.

    Attributes:
        rounds: rounds so far; the first one is not counted in, for it may pay for warming up.
        seconds, symbols: of a round; symbols per row.
        idle, wait: rounds since it was last used, and after how many it is tried again.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self.seconds = self.symbols = 0.0
        self.idle, self.wait = 0, _FIRST_WAIT

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
        """Symbols per row and second; infinite until it was tried often enough, and where it is due again."""
        due = self.rounds < _TRIALS or self.idle >= self.wait
        return float("inf") if due else self.symbols / self.seconds

    def use(self) -> None:
        """Choose it for a round. Tried again in vain, it waits longer."""
        if self.idle >= self.wait:
            self.wait = min(2 * self.wait, _LAST_WAIT)
        self.idle = 0


Memory = dict[tuple[str, int, int], _Arm]
"""What was learnt, by drafter, width of the draft (0: whatever width) and size of the batch (its power of two)."""


class AutoDrafter:
    """Use, in each round, the drafter that has lately given the most symbols per second, or none.

    Every drafter gets a few rounds in which it proposes something; then the one of the best rate is asked first. What a
    round costs, drafting and verifying at its width, is measured, and so is what it gives; a draft of a width that has
    lost against no draft is dropped. What loses is tried again now and then, ever more seldom, since texts change. The
    output does not depend on the choice; only time does.

    Args:
        drafters: to choose from; proposing nothing is always a choice.
        memory: what earlier runs on this machine have learnt; it is added to.
    """

    name = "auto"

    def __init__(self, drafters: Sequence[Drafter], memory: Memory | None = None) -> None:
        self.drafters: list[Drafter] = [NoDrafter(), *drafters]
        self._arms: Memory = {} if memory is None else memory
        self._used: list[_Arm] = []

    @property
    def max_draft(self) -> int:
        """The widest draft of any drafter."""
        return max(drafter.max_draft for drafter in self.drafters)

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Begin a run with every drafter."""
        for drafter in self.drafters:
            drafter.start(prompts, max_new, target)
        self._used = []

    def propose(self, round_: Round) -> Draft:
        """The draft of the drafter chosen for this round."""
        batch = len(round_.counts).bit_length()
        whole = {drafter.name: self._arm(drafter.name, 0, batch) for drafter in self.drafters}
        for arm in whole.values():
            arm.idle += 1
        plain = whole[NoDrafter.name]
        for drafter in sorted(self.drafters, key=lambda drafter: whole[drafter.name].rate, reverse=True):
            draft = drafter.propose(round_)
            width = draft.symbols.shape[1]
            if isinstance(drafter, NoDrafter):
                return self._choose(draft, [plain])
            if width:
                arm = self._arm(drafter.name, width, batch)
                arm.idle += 1
                if arm.rate > plain.rate or plain.rate == float("inf"):
                    return self._choose(draft, [whole[drafter.name], arm])
        raise AssertionError("proposing nothing is always a choice")

    def select(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows of the batch, in this order."""
        for drafter in self.drafters:
            drafter.select(rows)

    def observe(self, accepted: NDArray[np.int64], seconds: float) -> None:
        """Learn what the last round cost and gave."""
        if len(accepted):
            for arm in self._used:
                arm.enter(float(accepted.mean()), seconds)

    def _arm(self, name: str, width: int, batch: int) -> _Arm:
        return self._arms.setdefault((name, width, batch), _Arm())

    def _choose(self, draft: Draft, arms: list[_Arm]) -> Draft:
        self._used = arms
        for arm in arms:
            arm.use()
        return draft

"""Choose the drafter that pays, on line."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding.drafters.base import NoDrafter
from bytelm.decoding.protocols import Draft, Drafter, JoiningDrafter, Round, Target
from bytelm.errors import DecodingError

_TRIALS = 3
_WORTH_A_TRIAL = 16
"""Units that the row which ends last must still need for something new to be tried."""

_FIXED_SHARE = 0.5
"""Share of a round's time that does not shrink with the rows that are left."""

_HOPELESS = 0.5
"""Share of the rate without a draft below which one round is trial enough."""

_MARGIN = 1.1
"""What a draft must gain over none: its cost varies more, and it must still pay when the text changes."""

_DROPPED = 0.05
"""Share of a round that a draft may have cost to be dropped for its width; a dearer one is used now it is there."""

_REST = 8
"""Rounds without a draft, at most, until it is reckoned again what pays."""

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

    def is_due(self, plain: "_Arm") -> bool:
        """Whether it was not tried for long, or not often enough yet to be told from the rounds without a draft."""
        hopeless = self.rounds > 0 and self.rate < _HOPELESS * plain.rate
        return self.idle >= self.wait or (self.rounds < _TRIALS and not hopeless)

    @property
    def rate(self) -> float:
        """Symbols per row and second; 0 before the first round."""
        return self.symbols / self.seconds if self.rounds else 0.0

    def use(self) -> None:
        """Choose it for a round. Tried again in vain, it waits longer."""
        if self.idle >= self.wait:
            self.wait = min(2 * self.wait, _LAST_WAIT)
        self.idle = 0


Memory = dict[tuple[str, int, int], _Arm]
"""What was learnt, by drafter, width of the draft and size of the batch, each by its power of two; width 0: whatever
width.
"""


class _Progress:
    """How far the rows of a batch are, and what each of them gains from each drafter.

    A batch ends with its last row, and a draft that helps some rows alone does not end it sooner. Row i needs
    ``n_i = remaining_i / gain_i`` more rounds; a round costs c + d * (rows left), so the batch needs
    ``c max n + d sum n``. With equal gains that is the mean alone, to which :meth:`evenness` compares.
    """

    def __init__(self, num_rows: int, max_new: int) -> None:
        self.remaining = np.full(num_rows, float(max_new))
        self._gains: dict[str, NDArray[np.float64]] = {}

    def join(self, num_rows: int, max_new: int) -> None:
        """Rows arrive, of which nothing is known: they gain what the others do on average."""
        self.remaining = np.append(self.remaining, np.full(num_rows, float(max_new)))
        self._gains = {
            name: np.append(gains, np.full(num_rows, gains.mean() if len(gains) else 1.0))
            for name, gains in self._gains.items()
        }

    def enter(self, name: str, symbols: NDArray[np.int64]) -> None:
        """Enter a round; a row that got nothing had ended before."""
        live = symbols > 0
        self.remaining = np.where(live, np.maximum(self.remaining - symbols, 0), 0)
        gains = self._gains.setdefault(name, np.full(len(symbols), symbols[live].mean() if live.any() else 1.0))
        gains += np.where(live, _MEMORY * (symbols - gains), 0)

    def select(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows, in this order."""
        self.remaining = self.remaining[rows]
        self._gains = {name: gains[rows] for name, gains in self._gains.items()}

    def evenness(self, name: str) -> float:
        """How fast the drafter ends the batch, over how fast it would if its rows were equal."""
        if len(self.remaining) == 1 or not self.remaining.any():
            return 1.0
        gains = self._gains.get(name, np.ones(len(self.remaining)))
        needed = self.remaining / gains
        even = self.remaining.mean() / gains.mean()
        return float(even / (_FIXED_SHARE * needed.max() + (1 - _FIXED_SHARE) * needed.mean()))


class AutoDrafter:
    """Use, in each round, the drafter that has lately given the most symbols per second, or none.

    Every drafter gets a few rounds in which it proposes something; then the one of the best rate is asked first. What a
    round costs, drafting and verifying at its width, is measured, and so is what it gives to the rows, those that will
    end last above all; a draft of a width that has lost against no draft is dropped. What loses is tried again now and
    then, ever more seldom, since texts change. The output does not depend on the choice; only time does.

    Args:
        drafters: to choose from; proposing nothing is always a choice.
        memory: what earlier runs on this machine have learnt; it is added to.
    """

    name = "auto"

    def __init__(self, drafters: Sequence[Drafter], memory: Memory | None = None) -> None:
        self.drafters: list[Drafter] = [NoDrafter(), *drafters]
        self._arms: Memory = {} if memory is None else memory
        self._used: list[_Arm] = []
        self._name = NoDrafter.name
        self._rest = self._rested = 0
        self._progress: _Progress

    @property
    def max_draft(self) -> int:
        """The widest draft of any drafter."""
        return max(drafter.max_draft for drafter in self.drafters)

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Begin a run with every drafter."""
        for drafter in self.drafters:
            drafter.start(prompts, max_new, target)
        self._used = []
        self._name = NoDrafter.name
        self._rest = self._rested = 0
        self._progress = _Progress(len(prompts), max_new)

    def join(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Rows arrive, for every drafter."""
        for drafter in self.drafters:
            if not isinstance(drafter, JoiningDrafter):
                raise DecodingError(f"drafter: {type(drafter).__name__} has no join, which rows that arrive later need")
            drafter.join(prompts, max_new, target)
        self._rest = 0
        self._progress.join(len(prompts), max_new)

    def propose(self, round_: Round) -> Draft:
        """The draft of the drafter chosen for this round."""
        if self._rest:
            self._rest, self._rested = self._rest - 1, self._rested + 1
            return self.drafters[0].propose(round_)
        batch = len(round_.counts).bit_length()
        whole = {drafter.name: self._arm(drafter.name, 0, batch) for drafter in self.drafters}
        for (_, _, size), arm in self._arms.items():
            arm.idle += (1 + self._rested) * (size == batch)
        self._rested = 0
        plain = whole[NoDrafter.name]
        evenness = {name: self._progress.evenness(name) for name in whole}
        rates = {name: self._rate(evenness[name], arm, plain, round_.unit) for name, arm in whole.items()}
        for (name, _, size), arm in self._arms.items():  # a drafter is asked if any width of its drafts pays
            if size == batch and name in rates:
                rates[name] = max(rates[name], arm.rate * evenness[name])
        rates[NoDrafter.name] *= _MARGIN
        ranked = sorted(self.drafters, key=lambda drafter: rates[drafter.name], reverse=True)
        for drafter in ranked:
            began = time.perf_counter()
            draft = drafter.propose(round_)
            spent, width = time.perf_counter() - began, draft.symbols.shape[1]
            if isinstance(drafter, NoDrafter):
                if drafter is ranked[0] and not plain.is_due(plain):
                    self._rest = min(_REST, *(max(0, arm.wait - arm.idle - 1) for arm in whole.values()))
                return self._choose(draft, [plain])
            if width:
                arm = self._arm(drafter.name, width.bit_length(), batch)
                dear = spent > _DROPPED * plain.seconds
                rate = self._rate(evenness[drafter.name], arm, plain, round_.unit)
                if dear or plain.is_due(plain) or rate > rates[NoDrafter.name]:
                    return self._choose(draft, [whole[drafter.name], arm])
        raise AssertionError("proposing nothing is always a choice")

    def select(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows of the batch, in this order."""
        for drafter in self.drafters:
            drafter.select(rows)
        self._rest = 0
        self._progress.select(rows)

    def observe(self, accepted: NDArray[np.int64], seconds: float) -> None:
        """Learn what the last round cost and gave."""
        if len(accepted):
            self._progress.enter(self._name, accepted)
            for arm in self._used:
                arm.enter(float(accepted.mean()), seconds)

    def _rate(self, evenness: float, arm: _Arm, plain: _Arm, unit: int) -> float:
        """By how much the drafter lately brought the batch nearer its end; infinite where it is to be tried."""
        if arm.is_due(plain) and self._progress.remaining.max() >= _WORTH_A_TRIAL * unit:
            return float("inf")
        return arm.rate * evenness

    def _arm(self, name: str, width: int, batch: int) -> _Arm:
        return self._arms.setdefault((name, width, batch), _Arm())

    def _choose(self, draft: Draft, arms: list[_Arm]) -> Draft:
        self._used, self._name = arms, draft.source
        for arm in arms:
            arm.use()
        return draft

"""The one decoding loop: every law, every drafter, every batch, and rows that join and leave while it runs."""

import dataclasses
import functools
import math
import time
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.decoding.drafters import NoDrafter
from bytelm.decoding.emission import Emission, Emitter
from bytelm.decoding.emitters import Emitters
from bytelm.decoding.generation import Ledger, RowResult, Totals
from bytelm.decoding.noise import row_seeds
from bytelm.decoding.processors import Processor
from bytelm.decoding.protocols import (
    Block,
    Draft,
    Drafter,
    JoiningBlock,
    JoiningDrafter,
    JoiningTarget,
    Round,
    Target,
)
from bytelm.decoding.rules import Rule, get_rule
from bytelm.decoding.sampling import GREEDY, Sampling
from bytelm.decoding.stats import Seconds
from bytelm.decoding.stops import Stop
from bytelm.errors import DecodingError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrival:
    """Rows that begin together under the same options; the fields are the arguments of :func:`~bytelm.decoding.decode`.

    Raises:
        DecodingError: no prompts, a limit below 1, or a seed out of range.
    """

    prompts: Sequence[NDArray[Any]]
    max_new: int
    sampling: Sampling = GREEDY
    stops: Sequence[Stop] = ()
    processor: Processor | None = None
    num_sequences: int = 1
    max_seconds: float | None = None
    seed: int | Sequence[int] = 0

    def __post_init__(self) -> None:
        if len(self.prompts) == 0:
            raise DecodingError("prompts: found none, expected at least one")
        for what, number in (("max_new", self.max_new), ("num_sequences", self.num_sequences)):
            if number < 1:
                raise DecodingError(f"{what}: found {number}, expected at least 1")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise DecodingError(f"max_seconds: found {self.max_seconds}, expected a number above 0")
        assert len(self.seeds) == self.num_rows

    @property
    def num_rows(self) -> int:
        """Prompts times sequences."""
        return len(self.prompts) * self.num_sequences

    @property
    def seeds(self) -> list[tuple[int, int]]:
        """Seed and identity of each row."""
        return row_seeds(self.seed, len(self.prompts), self.num_sequences)

    @property
    def repeated(self) -> list[NDArray[Any]]:
        """The prompt of each row."""
        return [prompt for prompt in self.prompts for _ in range(self.num_sequences)]


class Step(NamedTuple):
    """What one forward gave one row.

    Attributes:
        row: its id.
        symbols: the new ones.
        nats: -log p of each under the law.
        result: all that the row gave, if it has ended.
    """

    row: int
    symbols: NDArray[Any]
    nats: NDArray[np.float64]
    result: RowResult | None


@dataclasses.dataclass
class _Batch:
    """Rows after a forward: what it gave them, and their part of everything that goes on with them."""

    target: Target
    emitters: Emitters
    ledger: Ledger
    block: Block
    draft: Draft
    emission: Emission
    kept: NDArray[np.int64]

    def select(self, places: NDArray[np.int64]) -> None:
        """Keep the rows at these places."""
        index = torch.from_numpy(places).to(self.target.device)
        self.target.select(index)
        self.emitters.select(places)
        self.ledger.select(places)
        self.block, self.emission, self.kept = self.block.select(index), self.emission.select(index), self.kept[places]

    def join(self, other: "_Batch") -> None:
        """Take up the rows of another, after one's own."""
        assert isinstance(self.target, JoiningTarget)
        assert isinstance(self.block, JoiningBlock)
        self.target.join(other.target)
        self.emitters.join(other.emitters)
        self.ledger.join(other.ledger)
        self.block, self.emission = self.block.join(other.block), self.emission.join(other.emission)
        self.kept = np.append(self.kept, other.kept)


class Session:
    """A batch that rows join and leave between forwards.

    A row's output is what :func:`~bytelm.decoding.decode` gives for it alone: it does not depend on who else is there.
    All rows share target, drafter and rule; sampling options and processors are those of their :class:`Arrival`. Rows
    have ids, 0, 1, 2, …, in the order of their arrival, which their stops are told.

    Args:
        target: the model under one law; its state is overwritten.
        drafter: proposes symbols to verify; none by default.
        verify: name of the rule, see :data:`bytelm.decoding.rules.RULES`.
    Attributes:
        totals: what all rows so far cost and gave.
        num_rows: rows that have arrived so far; the id of the next one.
    """

    def __init__(self, target: Target, *, drafter: Drafter | None = None, verify: str = "exact") -> None:
        self.target, self.drafter = target, drafter if drafter is not None else NoDrafter()
        self.verify, self._rule = verify, get_rule(verify)
        self.totals, self.num_rows = Totals(), 0
        self._batch: _Batch | None = None
        self._clock = _Clock()

    @property
    def rule(self) -> Rule:
        """The rule that ``verify`` names."""
        return self._rule

    @property
    def num_live(self) -> int:
        """Rows that have not ended."""
        return 0 if self._batch is None else int(self._batch.ledger.live.sum())

    @property
    def seconds(self) -> Seconds:
        """Wall time by part since the session began; what passes between rounds is the host's."""
        self._clock.lap("host")
        return Seconds(**self._clock.seconds)

    def admit(self, arrivals: Sequence[Arrival]) -> list[Step]:
        """Read the prompts of new rows, one forward for all, and emit their first symbols.

        Raises:
            DecodingError: what target and drafter refuse; options that differ, under a rule that is not coupled. Then
                no row has arrived, and those that run are as they were.
        """
        self._check(arrivals)
        with torch.inference_mode():
            self._shrink(all_of_them=True)
            arriving = self._read(arrivals)
        steps = self._record(arriving)
        if self._batch is None:
            self._batch = arriving
            self.drafter.observe(arriving.kept, self._clock.take_round())
        else:
            with torch.inference_mode():
                self._batch.join(arriving)
        self.num_rows += len(arriving.kept)
        return steps

    def round(self) -> list[Step]:
        """One forward for all live rows, of which there must be one; what it gave each."""
        self._clock.take_round()
        with torch.inference_mode():
            self._shrink(all_of_them=not self.target.fixed_shapes)
            assert self._batch is not None
            self._step(self._batch)
        steps = self._record(self._batch)
        self.drafter.observe(self._batch.kept, self._clock.take_round())
        return steps

    def retire(self, rows: Container[int]) -> None:
        """End these rows where they are, without a result; their memory is free after the next round or admission."""
        if self._batch is not None:
            self._batch.ledger.retire(rows)

    def release(self) -> None:
        """Give back the memory of rows that have ended; of all of it, where none is live."""
        with torch.inference_mode():
            self._shrink(all_of_them=True)

    def _check(self, arrivals: Sequence[Arrival]) -> None:
        options = {(arrival.sampling, id(arrival.processor)) for arrival in arrivals}
        if not self._rule.coupled and (len(options) > 1 or self.num_live):
            raise DecodingError(f"verify {self.verify!r}: found rows of several arrivals, expected those of one")
        if not self.num_live:
            return
        for what, part, kind in (("target", self.target, JoiningTarget), ("drafter", self.drafter, JoiningDrafter)):
            if not isinstance(part, kind):
                raise DecodingError(f"{what}: {type(part).__name__} has no join, which rows that arrive later need")

    def _read(self, arrivals: Sequence[Arrival]) -> _Batch:
        """Read the prompts, share what was read among the sequences, emit the first symbols."""
        alone, device = self._batch is None, self.target.device
        deadlines = [self._clock.deadline(arrival.max_seconds) for arrival in arrivals for _ in arrival.seeds]
        target, begin = self.target, self.drafter.start
        if not alone:
            assert isinstance(self.target, JoiningTarget)
            assert isinstance(self.drafter, JoiningDrafter)
            target, begin = self.target.new(), self.drafter.join
        limits = [arrival.max_new for arrival in arrivals for _ in arrival.prompts]
        prompts = [prompt for arrival in arrivals for prompt in arrival.prompts]
        block = target.start(prompts, limits, self.drafter.max_draft)
        counts = [arrival.num_sequences for arrival in arrivals for _ in arrival.prompts]
        if max(counts) > 1:
            rows = torch.from_numpy(np.repeat(np.arange(len(prompts)), counts)).to(device)
            target.select(rows)
            block = block.select(rows)
        self._clock.lap("prefill")
        repeated = [prompt for arrival in arrivals for prompt in arrival.repeated]
        emitters = self._emitters(arrivals, target)
        begin(repeated, max(limits), target)
        self._clock.lap("draft")
        ledger = Ledger(
            self.num_rows + np.arange(len(repeated)),
            repeated,
            [arrival.max_new for arrival in arrivals for _ in arrival.seeds],
            [arrival.stops for arrival in arrivals for _ in arrival.seeds],
            deadlines,
            target.vocab_size,
            self.totals,
        )
        draft = Draft(torch.empty(len(repeated), 0, dtype=torch.int64, device=device))
        emission = emitters.emit(block, draft, target.unit, ledger.positions)
        return _Batch(target, emitters, ledger, block, draft, emission, np.zeros(0, dtype=np.int64))

    def _emitters(self, arrivals: Sequence[Arrival], target: Target) -> Emitters:
        """Of the rows of these arrivals, shown their prompts."""
        found: Emitters | None = None
        for arrival in arrivals:
            emitter = Emitter(
                self._rule,
                arrival.sampling,
                arrival.processor,
                arrival.seeds,
                target.vocab_size,
                target.device,
                target.fixed_shapes,
            )
            emitter.start(arrival.repeated, arrival.max_new + self.drafter.max_draft + 2 * target.unit)
            own = Emitters(emitter, arrival.num_rows)
            if found is None:
                found = own
            else:
                found.join(own)
        assert found is not None
        return found

    def _record(self, batch: _Batch) -> list[Step]:
        """Enter the emission into the books."""
        ledger = batch.ledger
        batch.emission.counts.cpu()  # where the host waits for the device, once a round
        now = self._clock.lap("verify")
        kept = batch.kept = ledger.record(batch.emission, batch.draft, batch.block.num_states, now)
        steps = [
            Step(
                int(ledger.ids[place]),
                *ledger.newest(place, int(kept[place])),
                None if ledger.live[place] else ledger.result(place),
            )
            for place in np.flatnonzero(kept).tolist()
        ]
        self._clock.lap("host")
        return steps

    def _shrink(self, *, all_of_them: bool) -> None:
        """Take finished rows out of the batch; else, as shapes are fixed, only when half of it has finished."""
        if self._batch is None:
            return
        live = np.flatnonzero(self._batch.ledger.live)
        num_rows = len(self._batch.kept)
        if len(live) == num_rows or (not all_of_them and 2 * len(live) > num_rows):
            return
        if len(live):
            self._batch.select(live)
        else:
            self.target.select(torch.from_numpy(live).to(self.target.device))
            self._batch = None
        self.drafter.select(live)

    def _step(self, batch: _Batch) -> None:
        """Draft, run one forward, emit."""
        ledger, emission = batch.ledger, batch.emission
        counts = torch.from_numpy(batch.kept * ledger.live).to(self.target.device)
        choose = functools.partial(batch.emitters.choice, ledger.positions)
        self._clock.lap("host")
        unit = self.target.unit
        draft = self.drafter.propose(
            Round(batch.block, emission.symbols, counts, ledger.histories(), unit, choose, ledger.room)
        )
        self._clock.lap("draft")
        batch.draft, batch.block = draft, self.target.advance(emission.symbols, counts, draft.symbols)
        batch.emission = batch.emitters.emit(batch.block, draft, unit, ledger.positions)


class _Clock:
    """Wall time by part, and of a round."""

    def __init__(self) -> None:
        self.seconds = {"prefill": 0.0, "draft": 0.0, "verify": 0.0, "host": 0.0}
        self._last = self._round = time.perf_counter()

    def deadline(self, seconds: float | None) -> float:
        """The time so many seconds from now; infinity for None."""
        return math.inf if seconds is None else time.perf_counter() + seconds

    def lap(self, part: str) -> float:
        """Add the time since the last lap to ``part``; returns the time."""
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now
        return now

    def take_round(self) -> float:
        """Seconds since this was last asked."""
        now = time.perf_counter()
        seconds, self._round = now - self._round, now
        return seconds

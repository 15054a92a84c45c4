"""The one decoding loop: every law, every drafter, every batch, and rows that join and leave while it runs."""

import dataclasses
import math
import time
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.decoding.begun import Begun
from bytelm.decoding.drafters import NoDrafter
from bytelm.decoding.emission import Emitter
from bytelm.decoding.emitters import Emitters
from bytelm.decoding.generation import Ledger, RowResult, Totals
from bytelm.decoding.noise import row_seeds
from bytelm.decoding.processors import Processor
from bytelm.decoding.protocols import (
    Choose,
    Draft,
    Drafter,
    JoiningDrafter,
    JoiningTarget,
    Round,
    Target,
)
from bytelm.decoding.rules import Rule, get_rule
from bytelm.decoding.sampling import GREEDY, Sampling
from bytelm.decoding.stats import Seconds
from bytelm.decoding.stops import Stop
from bytelm.decoding.transfer import to_device, wait_for
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
    """Rows after a forward: what it gave them, and their part of everything that goes on with them.

    ``ahead`` is a forward that was begun before the symbols of ``forward`` were known, in which case target and
    emitters are one forward further than the books.
    """

    target: Target
    emitters: Emitters
    ledger: Ledger
    forward: Begun
    kept: NDArray[np.int64]
    ahead: Begun | None = None

    def select(self, places: NDArray[np.int64]) -> None:
        """Keep the rows at these places."""
        index = to_device(places, self.target.device)
        self.target.select(index)
        self.emitters.select(places)
        self.ledger.select(places)
        self.forward, self.kept = self.forward.select(index), self.kept[places]
        self.ahead = None if self.ahead is None else self.ahead.select(index)

    def join(self, other: "_Batch") -> None:
        """Take up the rows of another, after one's own."""
        assert isinstance(self.target, JoiningTarget)
        assert self.ahead is None
        self.target.join(other.target)
        self.emitters.join(other.emitters)
        self.ledger.join(other.ledger)
        self.forward = self.forward.join(other.forward)
        self.kept = np.append(self.kept, other.kept)


class Session:
    """A batch that rows join and leave between forwards.

    A row's output is what :func:`~bytelm.decoding.decode` gives for it alone: it does not depend on who else is there.
    All rows share target, drafter and rule; sampling options and processors are those of their :class:`Arrival`. Rows
    have ids, 0, 1, 2, …, in the order of their arrival, which their stops are told.

    Without a drafter nothing that the next forward needs depends on what a forward emits: a target that is
    ``asynchronous`` is told the next one before the host waits for the symbols of the last. A row that a stop ends has
    then one forward more, of which nothing is kept and which no figure counts.

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
        self._goes_ahead = getattr(target, "asynchronous", False) and self.drafter.max_draft == 0
        self._graphs = getattr(target, "graphs", None)
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

        Where a forward of the rows that are there was begun ahead, what it gave them comes first.

        Raises:
            DecodingError: what target and drafter refuse; options that differ, under a rule that is not coupled. Then
                no row has arrived, and those that run are as they were.
        """
        self._check(arrivals)
        with torch.inference_mode():
            self._shrink(all_of_them=True)
            arriving = self._read(arrivals)
        steps = self._land() + self._record(arriving)
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
            batch = self._batch
            assert batch is not None
            batch.forward, batch.ahead = batch.ahead or self._begin(batch), None
            if self._goes_ahead and batch.ledger.room > self.target.unit:
                batch.ahead = self._begin_ahead(batch)
        steps = self._record(batch)
        self.drafter.observe(batch.kept, self._clock.take_round())
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
            rows = to_device(np.repeat(np.arange(len(prompts)), counts), device)
            target.select(rows)
            block = block.select(rows)
        wait_for(device)
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
        forward = Begun(block, draft, emission, self._goes_ahead)
        return _Batch(target, emitters, ledger, forward, np.zeros(0, dtype=np.int64))

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

    def _land(self) -> list[Step]:
        """Enter the forward that was begun ahead, if there is one."""
        batch = self._batch
        if batch is None or batch.ahead is None:
            return []
        batch.forward, batch.ahead = batch.ahead, None
        return self._record(batch)

    def _record(self, batch: _Batch) -> list[Step]:
        """Enter what the last forward emitted into the books."""
        ledger = batch.ledger
        emission, draft = batch.forward.fetch()  # where the host waits for the device, once a round
        now = self._clock.lap("verify")
        kept = batch.kept = ledger.record(emission, draft, batch.forward.block.num_states, now)
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
            self.target.select(to_device(live, self.target.device))
            self._batch = None
        self.drafter.select(live)

    def _begin(self, batch: _Batch) -> Begun:
        """Draft, begin one forward and its emission."""
        ledger, emission = batch.ledger, batch.forward.emission
        counts = to_device(batch.kept * ledger.live, self.target.device)
        self._clock.lap("host")
        unit, positions = self.target.unit, ledger.positions

        def choice(most: int) -> Choose:
            return batch.emitters.choice(positions, most)

        draft = self.drafter.propose(Round(batch.forward.block, emission.symbols, counts, unit, choice, ledger))
        self._clock.lap("draft")
        block = self.target.advance(emission.symbols, counts, draft.symbols)
        emission = batch.emitters.emit(block, draft, unit, positions, self._graphs)
        return Begun(block, draft, emission, self._goes_ahead)

    def _begin_ahead(self, batch: _Batch) -> Begun:
        """Begin the forward after one whose symbols are not known: without a draft, each row commits one unit."""
        symbols, unit = batch.forward.emission.symbols, self.target.unit
        draft = Draft(symbols[:, :0])
        counts = torch.full((len(symbols),), unit, dtype=torch.int64, device=symbols.device)
        block = self.target.advance(symbols, counts, draft.symbols)
        emission = batch.emitters.emit(block, draft, unit, batch.ledger.positions + unit, self._graphs)
        return Begun(block, draft, emission, self._goes_ahead)


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

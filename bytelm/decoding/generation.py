"""What a decoding run gave, and the books kept while it runs."""

import dataclasses
from collections.abc import Container, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding.emission import Emission
from bytelm.decoding.protocols import Draft
from bytelm.decoding.stats import DecodeStats, Seconds, Tally
from bytelm.decoding.stops import Stop

Finish = Literal["length", "stop", "time"]

LAW = "law"
"""Source of a symbol that no draft had proposed."""


class Trace(NamedTuple):
    """Where each symbol of a row came from.

    Attributes:
        forward: its forward (0 is the prefill).
        offset: its place among the symbols of that forward.
        source: the drafter that had proposed it, or ``law``.
    """

    forward: NDArray[np.int64]
    offset: NDArray[np.int64]
    source: NDArray[np.str_]


@dataclasses.dataclass(frozen=True)
class Generation:
    """Result of :func:`~bytelm.decoding.decode`; one entry per row in every list."""

    symbols: list[NDArray[Any]]
    """Generated symbols, the stop's included and the prompt's not; uint8 where V <= 256, else int64."""
    finish: list[Finish]
    """Why each row ended."""
    nats: list[NDArray[np.float64]]
    """-log p of each symbol under the law itself, before temperature and truncation."""
    trace: list[Trace]
    """Forward, place in it and drafter of each symbol."""
    stats: DecodeStats


class RowResult(NamedTuple):
    """What one row gave; the fields are those of :class:`Generation`.

    Attributes:
        forwards: that ran while the row was live, its prefill included.
    """

    symbols: NDArray[Any]
    finish: Finish
    nats: NDArray[np.float64]
    trace: Trace
    forwards: int


class Totals:
    """What decoding cost and gave so far, over all rows that ever ran.

    Attributes:
        forwards: of the target; reading the prompts of rows that arrive together is one.
        states: that forwards after those computed for live rows.
        symbols: emitted.
        tally: of drafts.
        names: what can have proposed a symbol; the first is the law itself.
    """

    def __init__(self) -> None:
        self.forwards = self.states = self.symbols = 0
        self.tally = Tally()
        self.names = [LAW]

    def number(self, name: str) -> int:
        """The number of a drafter among ``names``."""
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def generation(self, rows: Sequence[RowResult], verify: str, exact: bool, parts: Seconds) -> Generation:
        """These rows, which are all that ran, as one result."""
        stats = DecodeStats(
            verify=verify,
            exact=exact,
            forwards=self.forwards,
            row_forwards=tuple(row.forwards for row in rows),
            states=self.states,
            symbols=self.symbols,
            drafted=self.tally.drafted,
            judged_at=tuple(self.tally.judged_at.tolist()),
            accepted_at=tuple(self.tally.accepted_at.tolist()),
            by_drafter=self.tally.by_drafter,
            parts=parts,
        )
        return Generation(
            symbols=[row.symbols for row in rows],
            finish=[row.finish for row in rows],
            nats=[row.nats for row in rows],
            trace=[row.trace for row in rows],
            stats=stats,
        )


class Ledger:
    """The books of the rows of a batch on the host: what was emitted, who is live, what drafting gave.

    Args:
        ids: of the rows, as stops are told them.
        prompts: of each row.
        max_new: of each row, the symbols after which it ends.
        stops: of each row.
        deadlines: of each row, the time after which it ends; infinity for none.
        vocab: V.
        totals: added to.
    Attributes:
        live: (B,) rows that have not ended.
        lengths: (B,) symbols of each row so far.
    """

    def __init__(
        self,
        ids: NDArray[np.int64],
        prompts: Sequence[NDArray[Any]],
        max_new: Sequence[int],
        stops: Sequence[Sequence[Stop]],
        deadlines: Sequence[float],
        vocab: int,
        totals: Totals,
    ) -> None:
        num_rows = len(prompts)
        self.ids, self.totals = ids, totals
        self.live = np.ones(num_rows, dtype=bool)
        self.lengths = np.zeros(num_rows, dtype=np.int64)
        self._limits, self._deadlines, self._stops = np.array(max_new), np.array(deadlines), list(stops)
        self._finish: list[Finish] = ["length"] * num_rows
        self._row_forwards = np.zeros(num_rows, dtype=np.int64)
        self._prompt_lengths = np.array([len(prompt) for prompt in prompts])
        dtype = np.uint8 if vocab <= 256 else np.int64
        widths = self._widths
        self._history = np.zeros((num_rows, widths["_history"]), dtype=dtype)
        for row, prompt in enumerate(prompts):
            self._history[row, : len(prompt)] = prompt
        self._nats = np.zeros((num_rows, widths["_nats"]))
        # By row and forward: the symbols that the row kept, the drafts that held, and the drafter.
        self._kept, self._held, self._source = (
            np.zeros((num_rows, widths[name]), dtype=np.int64) for name in ("_kept", "_held", "_source")
        )

    @property
    def room(self) -> int:
        """The most symbols that a live row may still emit."""
        return int((self._limits - self.lengths)[self.live].max())

    @property
    def positions(self) -> NDArray[np.int64]:
        """For each row, the index of its next symbol; for one that has ended, that of the row which is furthest on.

        So rows that began together stay in step.
        """
        return self.lengths.copy() if self.live.all() else np.where(self.live, self.lengths, self.lengths.max())

    def histories(self) -> list[NDArray[Any]]:
        """Prompt and generated symbols of each row."""
        ends = self._prompt_lengths + self.lengths
        return [history[:end] for history, end in zip(self._history, ends.tolist(), strict=True)]

    def newest(self, place: int, count: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """The last ``count`` symbols of the row at a place of the batch, and their nats."""
        length = int(self.lengths[place])
        return self._generated(place, length)[length - count :], self._nats[place, length - count : length]

    def result(self, place: int) -> RowResult:
        """What the row at a place of the batch gave; copies."""
        length, num_forwards = int(self.lengths[place]), int(self._row_forwards[place])
        kept = self._kept[place, :num_forwards]
        forward = np.repeat(np.arange(num_forwards), kept)
        offset = np.arange(length) - (np.cumsum(kept) - kept)[forward]
        drafted = offset < self._held[place][forward]
        source = np.array(self.totals.names)[np.where(drafted, self._source[place][forward], 0)]
        return RowResult(
            self._generated(place, length).copy(),
            self._finish[place],
            self._nats[place, :length].copy(),
            Trace(forward, offset, source),
            num_forwards,
        )

    def retire(self, ids: Container[int]) -> None:
        """End the rows of these ids where they are."""
        self.live &= np.array([row not in ids for row in self.ids.tolist()])

    def select(self, places: NDArray[np.int64]) -> None:
        """Keep the rows at these places."""
        self._stops = [self._stops[place] for place in places.tolist()]
        self._finish = [self._finish[place] for place in places.tolist()]
        for name in (*_OF_ROWS, *self._widths):
            setattr(self, name, getattr(self, name)[places])

    def join(self, other: "Ledger") -> None:
        """Take up the rows of another, after one's own; nothing is kept wider than the rows need."""
        self._stops += other._stops
        self._finish += other._finish
        for name in _OF_ROWS:
            setattr(self, name, np.concatenate((getattr(self, name), getattr(other, name))))
        for name, width in self._widths.items():
            parts = [getattr(ledger, name)[:, :width] for ledger in (self, other)]
            padded = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]
            setattr(self, name, np.concatenate(padded))

    def record(self, emission: Emission, draft: Draft, num_states: int, now: float) -> NDArray[np.int64]:
        """Enter one forward's emission, cut where a stop or the length limit falls; end the rows that finish.

        Args:
            emission: of the rows of the batch, on the CPU.
            draft: the draft that the forward was run on, too.
            num_states: of the block.
            now: the time; rows whose deadline has passed end.
        Returns:
            (B,) how many symbols each row of the batch got; 0 where it had finished before.
        """
        emitted, counts, nats = (part.numpy() for part in emission)
        totals, live = self.totals, self.live.copy()
        kept = np.minimum(counts, self._limits - self.lengths) * live
        # All of it: what is not kept lies where a row's next symbols will, or in the one column after its last.
        columns = np.minimum(self.lengths[:, None] + np.arange(emitted.shape[1]), self._limits[:, None])
        rows = np.arange(len(live))
        self._nats[rows[:, None], columns] = nats
        self._history[rows[:, None], columns + self._prompt_lengths[:, None]] = emitted
        if any(self._stops):
            self._stop(kept)
        self._kept[rows, self._row_forwards] = kept
        if draft.symbols.shape[1]:
            self._held[rows, self._row_forwards] = self._judge(emitted, draft, kept, live)
            self._source[rows, self._row_forwards] = totals.number(draft.source)
        if self._row_forwards[0]:  # else they were prompts, which are all read together
            totals.states += int(np.count_nonzero(live)) * num_states
        totals.forwards += 1
        totals.symbols += int(kept.sum())
        self._row_forwards += live
        self.lengths += kept
        self.live &= self.lengths < self._limits
        if self._deadlines.min() < now:
            for place in np.flatnonzero(self.live & (self._deadlines < now)).tolist():
                self.live[place], self._finish[place] = False, "time"
        return kept

    @property
    def _widths(self) -> dict[str, int]:
        """Columns of each array by row and symbol, or row and forward: one more than the rows may have of them."""
        most = int(self._limits.max()) + 1
        history = int((self._prompt_lengths + self._limits).max()) + 1
        return {"_history": history} | dict.fromkeys(("_nats", "_kept", "_held", "_source"), most)

    def _generated(self, place: int, length: int) -> NDArray[Any]:
        begin = int(self._prompt_lengths[place])
        return self._history[place, begin : begin + length]

    def _judge(
        self, emitted: NDArray[np.int64], draft: Draft, kept: NDArray[np.int64], live: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """How many drafts of each row held with all before them; all that were compared are tallied."""
        drafted = draft.symbols.numpy()
        num_rows, width = drafted.shape
        proposed = live * width if draft.proposed is None else draft.proposed.numpy() * live
        fails = np.ones((num_rows, width + 1), dtype=bool)
        fails[:, :-1] = emitted[:, :width] != drafted
        held: NDArray[np.int64] = np.minimum(fails.argmax(axis=1), proposed)
        judged = np.minimum(np.minimum(held + 1, proposed), kept)
        self.totals.tally.judge(draft.source, width, judged, np.minimum(held, judged), int(proposed.sum()))
        return held

    def _stop(self, kept: NDArray[np.int64]) -> None:
        """Ask the stops about every new symbol; end the rows that stop and cut ``kept`` there."""
        for place, (row, stops) in enumerate(zip(self.ids.tolist(), self._stops, strict=True)):
            if not self.live[place]:
                continue
            start, kept_here = int(self.lengths[place]), int(kept[place])
            generated = self._generated(place, start + kept_here)
            for count in range(1, kept_here + 1):
                if any(stop(row, generated[: start + count]) for stop in stops):
                    self.live[place], self._finish[place], kept[place] = False, "stop", count
                    break


_OF_ROWS = ("ids", "live", "lengths", "_limits", "_deadlines", "_row_forwards", "_prompt_lengths")
"""Arrays of a ledger by row."""

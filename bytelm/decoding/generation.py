"""What a decoding run gave, and the books kept while it runs."""

import dataclasses
from collections.abc import Sequence
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


class Ledger:
    """The books of all rows on the host: what was emitted, who is live, what drafting gave.

    A batch may hold some of the rows only; ``rows`` says which.
    """

    def __init__(self, prompts: Sequence[NDArray[Any]], max_new: int, stops: Sequence[Stop], vocab: int) -> None:
        num_rows = len(prompts)
        self.live = np.ones(num_rows, dtype=bool)
        self.lengths = np.zeros(num_rows, dtype=np.int64)
        self.rows = np.arange(num_rows)
        self._max_new, self._stops = max_new, stops
        self._finish: list[Finish] = ["length"] * num_rows
        self._prompt_lengths = np.array([len(prompt) for prompt in prompts])
        dtype = np.uint8 if vocab <= 256 else np.int64
        self._history = np.zeros((num_rows, int(self._prompt_lengths.max()) + max_new), dtype=dtype)
        for row, prompt in enumerate(prompts):
            self._history[row, : len(prompt)] = prompt
        self._row_forwards = np.zeros(num_rows, dtype=np.int64)
        self._forwards = self._states = 0
        self._tally = Tally()
        self._nats = np.zeros((num_rows, max_new))
        self._forward = np.zeros((num_rows, max_new), dtype=np.int64)
        self._offset = np.zeros((num_rows, max_new), dtype=np.int64)
        self._names = [LAW]
        self._source = np.zeros((num_rows, max_new), dtype=np.int64)

    @property
    def room(self) -> int:
        """The most symbols that a live row may still emit."""
        return self._max_new - int(self.lengths[self.live].min())

    @property
    def positions(self) -> NDArray[np.int64]:
        """For each row of the batch, the index of its next symbol."""
        return self.lengths[self.rows]

    def histories(self) -> list[NDArray[Any]]:
        """Prompt and generated symbols of each row of the batch."""
        ends = self._prompt_lengths + self.lengths
        return [self._history[row, : ends[row]] for row in self.rows.tolist()]

    def generated(self, row: int) -> NDArray[Any]:
        """The generated symbols of a row."""
        begin = int(self._prompt_lengths[row])
        return self._history[row, begin : begin + int(self.lengths[row])]

    def record(self, emission: Emission, draft: Draft, num_states: int) -> NDArray[np.int64]:
        """Enter one forward's emission, cut where a stop or the length limit falls; end the rows that finish.

        Args:
            emission: of the rows of the batch.
            draft: the draft that the forward was run on.
            num_states: of the block.
        Returns:
            (B,) how many symbols each row of the batch got; 0 where it had finished before.
        """
        emitted, counts, nats = emission.symbols.cpu().numpy(), emission.counts.cpu().numpy(), emission.nats
        rows = self.rows
        live = self.live[rows]
        kept = np.minimum(counts, self._max_new - self.lengths[rows]) * live
        batch, offsets = np.nonzero(np.arange(emitted.shape[1]) < kept[:, None])
        into = rows[batch], self.lengths[rows[batch]] + offsets
        self._history[into[0], self._prompt_lengths[into[0]] + into[1]] = emitted[batch, offsets]
        self._nats[into] = nats.cpu().numpy()[batch, offsets]
        self._forward[into], self._offset[into] = self._forwards, offsets
        held, judged, num_drafted = self._drafts(emitted, draft, live)
        self._source[into] = np.pad(held, ((0, 0), (0, emitted.shape[1] - held.shape[1])))[batch, offsets] * (
            self._source_number(draft.source)
        )
        if self._stops:
            self._stop(kept)
        if held.shape[1]:
            judged &= np.arange(held.shape[1]) < kept[:, None]
            self._tally.judge(draft.source, held, judged, num_drafted)
        self._states += int(live.sum()) * num_states * (self._forwards > 0)
        self._forwards += 1
        self._row_forwards[rows] += live
        self.lengths[rows] += kept
        self.live[rows] &= self.lengths[rows] < self._max_new
        return kept

    def end(self, reason: Finish) -> None:
        """End all live rows where they are."""
        for row in np.flatnonzero(self.live).tolist():
            self._finish[row] = reason
        self.live[:] = False

    def _source_number(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)

    def _drafts(
        self, emitted: NDArray[np.int64], draft: Draft, live: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], int]:
        """Which drafts held with all before them, which were compared, and how many there were."""
        drafted = draft.symbols.cpu().numpy()
        width = drafted.shape[1]
        proposed = np.full(len(drafted), width) if draft.proposed is None else draft.proposed.cpu().numpy()
        real = np.arange(width) < proposed[:, None]
        held = np.logical_and.accumulate((emitted[:, :width] == drafted) & real, axis=1)
        judged = real & live[:, None]
        judged[:, 1:] &= held[:, :-1]
        return held, judged, int((real & live[:, None]).sum())

    def _stop(self, kept: NDArray[np.int64]) -> None:
        """Ask the stops about every new symbol; end the rows that stop and cut ``kept`` there."""
        for place, row in enumerate(self.rows.tolist()):
            if not self.live[row]:
                continue
            begin, start = int(self._prompt_lengths[row]), int(self.lengths[row])
            for count in range(1, int(kept[place]) + 1):
                generated = self._history[row, begin : begin + start + count]
                if any(stop(row, generated) for stop in self._stops):
                    self.live[row], self._finish[row], kept[place] = False, "stop", count
                    break

    def close(self, verify: str, exact: bool, parts: Seconds) -> Generation:
        """The result, once every row has finished."""
        tally = self._tally
        stats = DecodeStats(
            verify=verify,
            exact=exact,
            forwards=self._forwards,
            row_forwards=tuple(self._row_forwards.tolist()),
            states=self._states,
            symbols=int(self.lengths.sum()),
            drafted=tally.drafted,
            judged_at=tuple(tally.judged_at.tolist()),
            accepted_at=tuple(tally.accepted_at.tolist()),
            by_drafter=dict(tally.by_drafter),
            parts=parts,
        )
        names = np.array(self._names)
        spans = [slice(0, length) for length in self.lengths.tolist()]
        return Generation(
            symbols=[self.generated(row).copy() for row in range(len(spans))],
            finish=self._finish,
            nats=[self._nats[row, span].copy() for row, span in enumerate(spans)],
            trace=[
                Trace(self._forward[row, span].copy(), self._offset[row, span].copy(), names[self._source[row, span]])
                for row, span in enumerate(spans)
            ],
            stats=stats,
        )

"""What a decoding run gave, and the books kept while it runs."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from bytelm.decoding.emission import Emission
from bytelm.decoding.stops import Stop
from bytelm.shapes import Symbols

Finish = Literal["length", "stop"]


class Trace(NamedTuple):
    """Where each symbol of a row came from: its forward (0 is the prefill) and its place in that forward's block."""

    forward: NDArray[np.int64]
    offset: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class DecodeStats:
    """What a decoding run cost and what drafting gave, over the whole batch."""

    forwards: int
    """Forwards of the target; the prefill counts as one, and a forward of a batch as one."""
    row_forwards: tuple[int, ...]
    """For each row, the forwards that ran while it was live."""
    symbols: int
    """Symbols emitted over all rows."""
    drafted: int
    """Drafted symbols that live rows handed to a forward."""
    judged_at: tuple[int, ...]
    """For each draft offset, drafts compared with the law's symbol: the row was live and all drafts before held."""
    accepted_at: tuple[int, ...]
    """For each draft offset, drafts that were the law's symbol."""
    seconds: float
    """Wall time, prefill included."""

    @property
    def accepted(self) -> int:
        """Drafted symbols that were emitted."""
        return sum(self.accepted_at)

    @property
    def symbols_per_forward(self) -> float:
        """Symbols for each forward of a live row: does not depend on the batch size."""
        return self.symbols / sum(self.row_forwards)


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
    """Forward and place in its block of each symbol."""
    stats: DecodeStats


class Ledger:
    """State of the rows on the host: what was emitted, who is live, what drafting gave."""

    def __init__(self, num_rows: int, max_new: int, stops: Sequence[Stop]) -> None:
        self.live = np.ones(num_rows, dtype=bool)
        self.lengths = np.zeros(num_rows, dtype=np.int64)
        self._max_new, self._stops = max_new, stops
        self._finish: list[Finish] = ["length"] * num_rows
        self._symbols: NDArray[Any] | None = None
        self._row_forwards = np.zeros(num_rows, dtype=np.int64)
        self._forwards = self._drafted = 0
        self._judged_at = np.zeros(0, dtype=np.int64)
        self._accepted_at = np.zeros(0, dtype=np.int64)
        self._nats: list[Float[Tensor, "B N"]] = []
        self._kept: list[NDArray[np.int64]] = []

    @property
    def limit(self) -> int:
        """The most symbols that a live row may still emit."""
        return self._max_new - int(self.lengths[self.live].min())

    def record(self, emission: Emission, draft: Symbols) -> NDArray[np.int64]:
        """Enter one forward's emission, cut where a stop or the length limit falls; end the rows that finish.

        Args:
            emission: symbols (B, N) with counts, from :func:`~bytelm.decoding.emission.emit`.
            draft: the draft that the forward was run on.
        Returns:
            (B,) how many symbols each row got; 0 where it had finished before.
        """
        host = torch.cat((emission.symbols, emission.counts[:, None]), dim=1).cpu().numpy()
        emitted, counts = host[:, :-1], host[:, -1]
        if self._symbols is None:
            dtype = np.uint8 if emission.vocab <= 256 else np.int64
            self._symbols = np.zeros((len(self.live), self._max_new), dtype=dtype)
        kept = np.minimum(counts, self._max_new - self.lengths) * self.live
        rows, offsets = np.nonzero(np.arange(emitted.shape[1]) < kept[:, None])
        self._symbols[rows, self.lengths[rows] + offsets] = emitted[rows, offsets]
        self._forwards += 1
        self._row_forwards += self.live
        self._drafted += int(self.live.sum()) * draft.shape[1]
        if self._stops:
            self._stop(kept)
        self.lengths += kept
        self.live &= self.lengths < self._max_new
        if draft.shape[1]:
            self._judge(emitted, kept, draft.cpu().numpy())
        self._nats.append(emission.nats)
        self._kept.append(kept)
        return kept

    def new_symbols(self, row: int, count: int) -> NDArray[Any]:
        """The last ``count`` symbols of a row."""
        assert self._symbols is not None
        return self._symbols[row, self.lengths[row] - count : self.lengths[row]]

    def _stop(self, kept: NDArray[np.int64]) -> None:
        """Ask the stops about every new symbol; end the rows that stop and cut ``kept`` there."""
        assert self._symbols is not None
        for row in np.flatnonzero(self.live).tolist():
            start = int(self.lengths[row])
            for count in range(1, int(kept[row]) + 1):
                generated = self._symbols[row, : start + count]
                if any(stop(row, generated) for stop in self._stops):
                    self.live[row], self._finish[row], kept[row] = False, "stop", count
                    break

    def _judge(self, emitted: NDArray[np.int64], kept: NDArray[np.int64], draft: NDArray[np.int64]) -> None:
        """Count the drafts that were compared, in each row up to the first that fails, and those that held."""
        width = min(draft.shape[1], emitted.shape[1])
        held = np.logical_and.accumulate(emitted[:, :width] == draft[:, :width], axis=1)
        judged = np.arange(width) < kept[:, None]
        judged[:, 1:] &= held[:, :-1]
        grow = max(0, draft.shape[1] - len(self._judged_at))
        self._judged_at = np.append(self._judged_at, np.zeros(grow, dtype=np.int64))
        self._accepted_at = np.append(self._accepted_at, np.zeros(grow, dtype=np.int64))
        self._judged_at[:width] += judged.sum(0)
        self._accepted_at[:width] += (judged & held).sum(0)

    def close(self, seconds: float) -> Generation:
        """The result, once every row has finished."""
        assert self._symbols is not None
        widths = [nats.shape[1] for nats in self._nats]
        forward = np.repeat(np.arange(len(widths)), widths)
        offset = np.concatenate([np.arange(width) for width in widths])
        keep = offset < np.repeat(np.stack(self._kept, axis=1), widths, axis=1)
        nats = torch.cat(self._nats, dim=1).cpu().numpy()
        stats = DecodeStats(
            forwards=self._forwards,
            row_forwards=tuple(self._row_forwards.tolist()),
            symbols=int(self.lengths.sum()),
            drafted=self._drafted,
            judged_at=tuple(self._judged_at.tolist()),
            accepted_at=tuple(self._accepted_at.tolist()),
            seconds=seconds,
        )
        return Generation(
            symbols=[row[:length].copy() for row, length in zip(self._symbols, self.lengths, strict=True)],
            finish=self._finish,
            nats=[row[mask] for row, mask in zip(nats, keep, strict=True)],
            trace=[Trace(forward[mask], offset[mask]) for mask in keep],
            stats=stats,
        )

"""What a decoding run gave, and the books kept while it runs."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.decoding.emission import Emission
from bytelm.decoding.stops import Stop

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
        self._judged_at: list[int] = []
        self._accepted_at: list[int] = []
        self._nats: list[Float[Tensor, "B N"]] = []
        self._kept: list[NDArray[np.int64]] = []

    @property
    def limit(self) -> int:
        """The most symbols that a live row may still emit."""
        return self._max_new - int(self.lengths[self.live].min())

    def record(self, emission: Emission, draft: Int[Tensor, "B _"]) -> list[tuple[int, NDArray[Any]]]:
        """Enter one forward's emission, cut where a stop or the length limit falls; end the rows that finish.

        Args:
            emission: symbols (B, N) with counts, from :func:`~bytelm.decoding.emission.emit`.
            draft: (B, N) the draft that the forward was run on; N may be 0 or differ.
        Returns:
            (row, its new symbols) of every live row.
        """
        host = torch.cat((emission.symbols, emission.counts[:, None]), dim=1).cpu().numpy()
        emitted, counts = host[:, :-1], host[:, -1]
        if self._symbols is None:
            dtype = np.uint8 if emission.vocab <= 256 else np.int64
            self._symbols = np.zeros((len(self.live), self._max_new), dtype=dtype)
        kept, new = np.zeros_like(counts), []
        self._forwards += 1
        self._row_forwards += self.live
        self._drafted += int(self.live.sum()) * draft.shape[1]
        drafted = draft.tolist()
        for row in np.flatnonzero(self.live).tolist():
            start = int(self.lengths[row])
            end = min(start + int(counts[row]), self._max_new)
            self._symbols[row, start:end] = emitted[row, : end - start]
            end = self._cut(row, start, end)
            kept[row], self.lengths[row] = end - start, end
            self._judge(emitted[row, : end - start].tolist(), drafted[row])
            new.append((row, self._symbols[row, start:end]))
        self._nats.append(emission.nats)
        self._kept.append(kept)
        return new

    def _cut(self, row: int, start: int, end: int) -> int:
        """End of the row's new symbols ``start … end`` after stops and the length limit."""
        assert self._symbols is not None
        for length in range(start + 1, end + 1) if self._stops else ():
            if any(stop(row, self._symbols[row, :length]) for stop in self._stops):
                self.live[row], self._finish[row] = False, "stop"
                return length
        if end == self._max_new:
            self.live[row] = False
        return end

    def _judge(self, emitted: list[int], draft: list[int]) -> None:
        """Count the drafts of one row that were compared, up to the first that fails, and those that held."""
        while len(self._judged_at) < len(draft):
            self._judged_at.append(0)
            self._accepted_at.append(0)
        for offset, (symbol, guess) in enumerate(zip(emitted, draft, strict=False)):
            self._judged_at[offset] += 1
            if symbol != guess:
                return
            self._accepted_at[offset] += 1

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
            judged_at=tuple(self._judged_at),
            accepted_at=tuple(self._accepted_at),
            seconds=seconds,
        )
        return Generation(
            symbols=[row[:length].copy() for row, length in zip(self._symbols, self.lengths, strict=True)],
            finish=self._finish,
            nats=[row[mask] for row, mask in zip(nats, keep, strict=True)],
            trace=[Trace(forward[mask], offset[mask]) for mask in keep],
            stats=stats,
        )

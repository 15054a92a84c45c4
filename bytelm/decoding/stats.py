"""What a decoding run cost and what drafting gave."""

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Wall time of a run by part: ``prefill`` reads the prompts, ``draft`` proposes, ``verify`` runs the target and
    emits, ``host`` keeps the books, asks the stops and streams.
    """

    prefill: float
    draft: float
    verify: float
    host: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.prefill + self.draft + self.verify + self.host


@dataclasses.dataclass(frozen=True)
class DecodeStats:
    """What a decoding run cost and what drafting gave, over the whole batch."""

    verify: str
    """Name of the rule."""
    exact: bool
    """Whether the output has the law; False for lossy rules."""
    forwards: int
    """Forwards of the target; the prefill counts as one, and a forward of a batch as one."""
    row_forwards: tuple[int, ...]
    """For each row, the forwards that ran while it was live."""
    states: int
    """States that forwards after the prefill computed for live rows: 1 + drafted units each."""
    symbols: int
    """Symbols emitted over all rows."""
    drafted: int
    """Drafted symbols that live rows handed to a forward."""
    judged_at: tuple[int, ...]
    """For each draft offset, drafts compared with the law's symbol: the row was live and all drafts before held."""
    accepted_at: tuple[int, ...]
    """For each draft offset, drafts that were the law's symbol."""
    by_drafter: dict[str, tuple[int, int]]
    """For each drafter, its drafted symbols that were judged, and those accepted."""
    parts: Seconds
    """Wall time by part."""

    @property
    def seconds(self) -> float:
        """Wall time, prefill included."""
        return self.parts.total

    @property
    def accepted(self) -> int:
        """Drafted symbols that were emitted."""
        return sum(self.accepted_at)

    @property
    def acceptance_at(self) -> tuple[float, ...]:
        """For each draft offset, the share of judged drafts that were accepted; NaN where none was judged."""
        return tuple(a / j if j else float("nan") for a, j in zip(self.accepted_at, self.judged_at, strict=True))

    @property
    def symbols_per_forward(self) -> float:
        """Symbols for each forward of a live row: does not depend on the batch size."""
        return self.symbols / sum(self.row_forwards)


class Tally:
    """Counts of drafts: by their offset and by drafter."""

    def __init__(self) -> None:
        self.drafted = 0
        self.judged_at = np.zeros(0, dtype=np.int64)
        self.accepted_at = np.zeros(0, dtype=np.int64)
        self.by_drafter: dict[str, tuple[int, int]] = {}

    def judge(self, source: str, held: NDArray[np.bool_], judged: NDArray[np.bool_], num_drafted: int) -> None:
        """Enter one round.

        Args:
            source: the drafter.
            held: (B, N) drafts that are, with all before them, the emitted symbols.
            judged: (B, N) drafts that were compared.
            num_drafted: drafts handed to the forward by live rows.
        """
        self.drafted += num_drafted
        width = held.shape[1]
        grow = np.zeros(max(0, width - len(self.judged_at)), dtype=np.int64)
        self.judged_at, self.accepted_at = np.append(self.judged_at, grow), np.append(self.accepted_at, grow)
        accepted = held & judged
        self.judged_at[:width] += judged.sum(0)
        self.accepted_at[:width] += accepted.sum(0)
        before = self.by_drafter.get(source, (0, 0))
        self.by_drafter[source] = (before[0] + int(judged.sum()), before[1] + int(accepted.sum()))

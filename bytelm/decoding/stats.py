"""What a decoding run cost and what drafting gave."""

import collections
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
    """Counts of drafts: by their offset and by drafter.

    Attributes:
        drafted: drafts handed to forwards by live rows.
    """

    def __init__(self) -> None:
        self.drafted = self._width = 0
        self._rounds: dict[str, collections.Counter[tuple[int, int]]] = {}

    def judge(
        self, source: str, width: int, judged: NDArray[np.int64], accepted: NDArray[np.int64], num_drafted: int
    ) -> None:
        """Enter one round.

        Args:
            source: the drafter.
            width: N, of the draft.
            judged: (B,) how many drafts of each row were compared.
            accepted: (B,) how many of them are, with all before them, the emitted symbols.
            num_drafted: drafts handed to the forward by live rows.
        """
        self.drafted += num_drafted
        self._width = max(self._width, width)
        if source not in self._rounds:
            self._rounds[source] = collections.Counter()
        self._rounds[source].update(zip(judged.tolist(), accepted.tolist(), strict=True))

    @property
    def judged_at(self) -> NDArray[np.int64]:
        """For each draft offset, drafts that were compared."""
        return self._at(0)

    @property
    def accepted_at(self) -> NDArray[np.int64]:
        """For each draft offset, drafts that were accepted."""
        return self._at(1)

    @property
    def by_drafter(self) -> dict[str, tuple[int, int]]:
        """For each drafter, drafts that were compared, and those accepted."""
        return {
            source: (sum(j * n for (j, _), n in rounds.items()), sum(a * n for (_, a), n in rounds.items()))
            for source, rounds in self._rounds.items()
        }

    def _at(self, which: int) -> NDArray[np.int64]:
        found = np.zeros(self._width, dtype=np.int64)
        for rounds in list(self._rounds.values()):  # others may ask while rounds are entered
            for numbers, count in list(rounds.items()):
                found[: numbers[which]] += count
        return found

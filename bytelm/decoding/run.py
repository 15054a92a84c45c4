"""A run of the loop on rows that begin together: what :func:`decode` does."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from bytelm.decoding.generation import Generation, RowResult
from bytelm.decoding.loop import Arrival, Session, Step
from bytelm.decoding.processors import Processor
from bytelm.decoding.protocols import Drafter, Target
from bytelm.decoding.sampling import GREEDY, Sampling
from bytelm.decoding.stats import Seconds
from bytelm.decoding.stops import Stop

Streamer = Callable[[int, NDArray[Any]], None]
"""``streamer(row, new_symbols)``, called after every forward for each live row, the symbols of a stop included."""


class News(NamedTuple):
    """The new symbols of one row after one forward."""

    row: int
    symbols: NDArray[Any]


def decode(
    target: Target,
    prompts: Sequence[NDArray[Any]],
    *,
    max_new: int,
    sampling: Sampling = GREEDY,
    stops: Sequence[Stop] = (),
    drafter: Drafter | None = None,
    verify: str = "exact",
    processor: Processor | None = None,
    num_sequences: int = 1,
    max_seconds: float | None = None,
    seed: int | Sequence[int] = 0,
    streamer: Streamer | None = None,
) -> Generation:
    """Generate after every prompt until a stop or ``max_new`` symbols.

    The output is a function of target, prompt, sampling, processors, and the row's seed and identity alone: the same
    for every drafter, draft length and batch composition, as far as the target's logits are the same. (Not so under
    ``rejection``, which has the law all the same, and ``typical``, which does not.)

    Args:
        target: the model under one law; its state is overwritten.
        prompts: one array per prompt, of any lengths.
        max_new: the exact length of a row that no stop ends.
        sampling: how a symbol is chosen; default greedy.
        stops: asked after every symbol, in order; the first that says so ends its row.
        drafter: proposes symbols to verify; none by default.
        verify: name of the rule, see :data:`bytelm.decoding.rules.RULES`.
        processor: changes the law's logits by what stands before.
        num_sequences: rows per prompt; they share its prefill. Row p * num_sequences + i is sequence i of prompt p.
        max_seconds: wall time after which no further forward begins; live rows then end as ``time``.
        seed: see :func:`bytelm.decoding.noise.row_seeds`.
        streamer: receives each row's new symbols after every forward.
    Raises:
        DecodingError: no prompts, a limit below 1, a seed out of range, or what target and drafter refuse.
    """
    arrival = Arrival(
        prompts=prompts,
        max_new=max_new,
        sampling=sampling,
        stops=stops,
        processor=processor,
        num_sequences=num_sequences,
        max_seconds=max_seconds,
        seed=seed,
    )
    run = Run(target, arrival, drafter=drafter, verify=verify)
    for news in run:
        if streamer is not None:
            for row, symbols in news:
                streamer(row, symbols)
    return run.result()


class Run:
    """A session of one arrival; iterating it runs it, a forward at a time.

    Args:
        target: the model under one law; its state is overwritten.
        arrival: the rows.
        drafter: as of :func:`decode`.
        verify: as of :func:`decode`.
    Attributes:
        num_rows: rows of the output: prompts times sequences.
    """

    def __init__(
        self, target: Target, arrival: Arrival, *, drafter: Drafter | None = None, verify: str = "exact"
    ) -> None:
        self._arrival = arrival
        self._session = Session(target, drafter=drafter, verify=verify)
        self.num_rows = arrival.num_rows
        self._results: dict[int, RowResult] = {}
        self._seconds = Seconds(0.0, 0.0, 0.0, 0.0)

    def __iter__(self) -> Iterator[list[News]]:
        """Run; after each forward, the new symbols of the rows that were live."""
        yield self._news(self._session.admit([self._arrival]))
        while self._session.num_live:
            yield self._news(self._session.round())
        self._seconds = self._session.seconds

    @property
    def drafter(self) -> Drafter:
        """Who proposes."""
        return self._session.drafter

    def result(self) -> Generation:
        """What the run gave, once it has ended."""
        session = self._session
        rows = [self._results[row] for row in range(self.num_rows)]
        return session.totals.generation(rows, session.verify, session.rule.exact, self._seconds)

    def _news(self, steps: list[Step]) -> list[News]:
        self._results.update((step.row, step.result) for step in steps if step.result is not None)
        return [News(step.row, step.symbols) for step in steps]

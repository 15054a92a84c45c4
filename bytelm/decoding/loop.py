"""The one decoding loop: every law, every drafter, every batch."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.decoding.drafters import NoDrafter
from bytelm.decoding.emission import Emission, Emitter
from bytelm.decoding.generation import Generation, Ledger
from bytelm.decoding.noise import row_seeds
from bytelm.decoding.processors import Processor
from bytelm.decoding.protocols import Block, Draft, Drafter, Round, Target
from bytelm.decoding.rules import get_rule
from bytelm.decoding.sampling import Sampling
from bytelm.decoding.stats import Seconds
from bytelm.decoding.stops import Stop
from bytelm.errors import DecodingError

Streamer = Callable[[int, NDArray[Any]], None]
"""``streamer(row, new_symbols)``, called after every forward for each live row, the symbols of a stop included."""

_GREEDY = Sampling()


class News(NamedTuple):
    """The new symbols of one row after one forward."""

    row: int
    symbols: NDArray[Any]


def decode(
    target: Target,
    prompts: Sequence[NDArray[Any]],
    *,
    max_new: int,
    sampling: Sampling = _GREEDY,
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
    run = Run(
        target,
        prompts,
        max_new=max_new,
        sampling=sampling,
        stops=stops,
        drafter=drafter,
        verify=verify,
        processor=processor,
        num_sequences=num_sequences,
        max_seconds=max_seconds,
        seed=seed,
    )
    for news in run:
        if streamer is not None:
            for row, symbols in news:
                streamer(row, symbols)
    return run.result()


class Run:
    """One decoding run; iterating it runs it, a forward at a time. The arguments are those of :func:`decode`."""

    def __init__(
        self,
        target: Target,
        prompts: Sequence[NDArray[Any]],
        *,
        max_new: int,
        sampling: Sampling = _GREEDY,
        stops: Sequence[Stop] = (),
        drafter: Drafter | None = None,
        verify: str = "exact",
        processor: Processor | None = None,
        num_sequences: int = 1,
        max_seconds: float | None = None,
        seed: int | Sequence[int] = 0,
    ) -> None:
        if len(prompts) == 0:
            raise DecodingError("prompts: found none, expected at least one")
        for what, number in (("max_new", max_new), ("num_sequences", num_sequences)):
            if number < 1:
                raise DecodingError(f"{what}: found {number}, expected at least 1")
        if max_seconds is not None and not max_seconds > 0:
            raise DecodingError(f"max_seconds: found {max_seconds}, expected a number above 0")
        self.target, self.drafter = target, drafter if drafter is not None else NoDrafter()
        self._prompts, self._max_new, self._num_sequences = prompts, max_new, num_sequences
        self._max_seconds = max_seconds
        self._verify, self._rule = verify, get_rule(verify)
        self._processor = processor
        self._emitter = Emitter(
            self._rule,
            sampling,
            processor,
            row_seeds(seed, len(prompts), num_sequences),
            target.vocab_size,
            target.device,
            target.fixed_shapes,
        )
        repeated = [prompt for prompt in prompts for _ in range(num_sequences)]
        self._ledger = Ledger(repeated, max_new, stops, target.vocab_size)
        self._clock = _Clock()

    def __iter__(self) -> Iterator[list[News]]:
        """Run; after each forward, the new symbols of the rows that were live."""
        with torch.inference_mode():
            emission, block, draft = self._begin()
        while True:
            yield self._record(emission, block, draft)
            if not self._ledger.live.any():
                self._clock.lap("host")
                return
            with torch.inference_mode():
                emission, block = self._shrink(emission, block)
                emission, block, draft = self._step(emission, block)

    @property
    def num_rows(self) -> int:
        """Rows of the output: prompts times sequences."""
        return len(self._ledger.live)

    def result(self) -> Generation:
        """What the run gave, once it has ended."""
        assert not self._ledger.live.any()
        return self._ledger.close(self._verify, self._rule.exact, Seconds(**self._clock.seconds))

    def _begin(self) -> tuple[Emission, Block, Draft]:
        """Read the prompts, share what was read among the sequences, emit the first symbols."""
        target, device = self.target, self.target.device
        block = target.start(self._prompts, self._max_new, self.drafter.max_draft)
        repeated = [prompt for prompt in self._prompts for _ in range(self._num_sequences)]
        if self._num_sequences > 1:
            rows = torch.arange(len(self._prompts), device=device).repeat_interleave(self._num_sequences)
            target.select(rows)
            block = block.select(rows)
        self._clock.lap("prefill")
        self.drafter.start(repeated, self._max_new, target)
        self._clock.lap("draft")
        state: Any = ()
        if self._processor is not None:
            most = self._max_new + self.drafter.max_draft + 2 * target.unit
            state = self._processor.start(repeated, most, target.vocab_size, device)
        draft = Draft(torch.empty(len(repeated), 0, dtype=torch.int64, device=device))
        return self._emitter.emit(block, draft, target.unit, state, self._ledger.positions), block, draft

    def _record(self, emission: Emission, block: Block, draft: Draft) -> list[News]:
        """Enter one emission into the books."""
        ledger, rows = self._ledger, self._ledger.rows
        emission.counts.cpu()  # where the host waits for the device, once a round
        self._clock.lap("verify")
        self._kept = ledger.record(emission, draft, block.num_states)
        if self._max_seconds is not None and self._clock.total > self._max_seconds:
            ledger.end("time")
        news = [
            News(int(rows[b]), ledger.generated(int(rows[b]))[-int(self._kept[b]) :])
            for b in np.flatnonzero(self._kept).tolist()
        ]
        self._clock.lap("host")
        self.drafter.observe(self._kept, self._clock.take_round())
        return news

    def _shrink(self, emission: Emission, block: Block) -> tuple[Emission, Block]:
        """Take finished rows out of the batch; where shapes are fixed, only when half of it has finished."""
        ledger, rows = self._ledger, self._ledger.rows
        live = np.flatnonzero(ledger.live[rows])
        if len(live) == len(rows) or (self.target.fixed_shapes and 2 * len(live) > len(rows)):
            return emission, block
        index = torch.from_numpy(live).to(self.target.device)
        ledger.rows, self._kept = rows[live], self._kept[live]
        self.target.select(index)
        self.drafter.select(live)
        self._emitter.select(live)
        return emission.select(index), block.select(index)

    def _step(self, emission: Emission, block: Block) -> tuple[Emission, Block, Draft]:
        """Draft, run one forward, emit."""
        target, ledger, emitter = self.target, self._ledger, self._emitter
        live = ledger.live[ledger.rows]
        counts = torch.from_numpy(self._kept * live).to(target.device)
        choose = functools.partial(emitter.choice, emission.state, ledger.positions)
        self._clock.lap("host")
        draft = self.drafter.propose(
            Round(block, emission.symbols, counts, ledger.histories(), target.unit, choose, ledger.room)
        )
        self._clock.lap("draft")
        block = target.advance(emission.symbols, counts, draft.symbols)
        emission = emitter.emit(block, draft, target.unit, emission.state, ledger.positions)
        return emission, block, draft


class _Clock:
    """Wall time by part, and of a round."""

    def __init__(self) -> None:
        self.seconds = {"prefill": 0.0, "draft": 0.0, "verify": 0.0, "host": 0.0}
        self._last = self._round = self._began = time.perf_counter()

    @property
    def total(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._began

    def lap(self, part: str) -> None:
        """Add the time since the last lap to ``part``."""
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    def take_round(self) -> float:
        """Seconds since this was last asked."""
        now = time.perf_counter()
        seconds, self._round = now - self._round, now
        return seconds

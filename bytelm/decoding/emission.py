"""The symbols that one forward lets every row emit. Positions are emitted side by side, a unit symbol after symbol."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.compilation import compiled
from bytelm.decoding.noise import GumbelNoise, uniform
from bytelm.decoding.processors import Processor, State, map_state
from bytelm.decoding.protocols import Block, Draft, DrawingBlock, RowIndices
from bytelm.decoding.rules import Noise, Proposal, Rule
from bytelm.decoding.sampling import Sampling, scores
from bytelm.decoding.transfer import to_device
from bytelm.graphs import Graphs
from bytelm.shapes import Counts, Symbols

_EMISSION, _ACCEPTANCE, _DRAFT, _RESIDUAL = range(4)


class Emission(NamedTuple):
    """What a block let every row emit: the first ``counts[b]`` of ``symbols``; the rest of a row is filler."""

    symbols: Symbols
    counts: Counts
    nats: Float[Tensor, "B N"]

    def select(self, rows: RowIndices) -> "Emission":
        """The emission of these rows."""
        return Emission(*(part[rows] for part in self))

    def join(self, other: "Emission") -> "Emission":
        """The rows of this emission and then those of another, which may be of another width."""
        width = max(self.symbols.shape[1], other.symbols.shape[1])
        parts = [torch.nn.functional.pad(one.symbols, (0, width - one.symbols.shape[1])) for one in (self, other)]
        nats = [torch.nn.functional.pad(one.nats, (0, width - one.nats.shape[1])) for one in (self, other)]
        return Emission(torch.cat(parts), torch.cat((self.counts, other.counts)), torch.cat(nats))


@dataclasses.dataclass
class Emitter:
    """The rule with its sampling options, its processors, and the noise of rows that share them.

    The symbol at a position is a function of the law's logits there, what stands before it, and the noise of (seed,
    row, position). The processors' state after what was emitted last is kept here.
    """

    rule: Rule
    sampling: Sampling
    processor: Processor | None
    seeds: Sequence[tuple[int, int]]
    vocab_size: int
    device: torch.device
    compiled: bool = False

    def __post_init__(self) -> None:
        streams = [_EMISSION] if self.rule.coupled else [_EMISSION, _ACCEPTANCE, _DRAFT, _RESIDUAL]
        self._noise = {} if self.sampling.greedy else {s: GumbelNoise(self.seeds, s) for s in streams}
        self._state: State = ()

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int) -> None:
        """Show the processors the prompts; ``max_new`` is the most symbols that will follow, drafted ones included."""
        if self.processor is not None:
            self._state = self.processor.start(prompts, max_new, self.vocab_size, self.device)

    def select(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows, in this order."""
        for noise in self._noise.values():
            noise.select(rows)
        if self.processor is not None:
            index = to_device(rows, self.device)
            self._state = map_state(lambda leaf: leaf[index], self._state)

    def shares(self, other: "Emitter") -> bool:
        """Whether the rows of another can join: processors know the rows that they were started with alone."""
        same = (self.rule, self.sampling) == (other.rule, other.sampling)
        return same and self.processor is None and other.processor is None

    def join(self, other: "Emitter") -> None:
        """Take up the rows of another that :meth:`shares` the options, after one's own."""
        for stream, noise in self._noise.items():
            noise.join(other._noise[stream])

    def emit(
        self, block: Block, draft: Draft, unit: int, positions: NDArray[np.int64], graphs: Graphs | None = None
    ) -> Emission:
        """Emit from one block: a unit where nothing was drafted, and a unit more for each that holds.

        Args:
            block: the law of the next symbols.
            draft: what the block was run on.
            unit: of the target.
            positions: (B,), the index of the next symbol of each row.
            graphs: replay it, where there are no processors, whose work may not be recordable; the result is then
                overwritten by that of the next such block.
        Returns:
            Symbols (B, R * unit) and -log p of each in float64 under the law itself, before temperature and truncation.
        """
        noise = {
            stream: source(positions, block.num_states * unit, self.vocab_size, self.device)
            for stream, source in self._noise.items()
        }
        emit = compiled(_emit) if self.compiled else _emit
        if graphs is not None and self.processor is None:
            return graphs.run(emit, block, unit, draft, (), noise, self.rule, self.sampling, None)[0]
        emission, self._state = emit(block, unit, draft, self._state, noise, self.rule, self.sampling, self.processor)
        return emission

    def choice(self, positions: NDArray[np.int64], most: int) -> "DraftChoice":
        """How drafters choose the ``most`` symbols after the committed ones."""
        window = None
        if not self.sampling.greedy:
            noise = self._noise[_EMISSION if self.rule.coupled else _DRAFT]
            window = noise(positions, most, self.vocab_size, self.device)
        return DraftChoice(self.processor, self.sampling, self.rule.coupled, self.vocab_size, self._state, window)


def process(
    processor: Processor | None, sampling: Sampling, state: State, logits: Float[Tensor, "*B V"]
) -> Float[Tensor, "*B V"]:
    """Logits after processors; where a symbol is drawn, the :func:`scores` that the options make of them."""
    if processor is not None:
        logits = processor.apply(state, logits)
    return logits if sampling.greedy else scores(logits, sampling)


def _emit(
    block: Block,
    unit: int,
    draft: Draft,
    state: State,
    noise: dict[int, Tensor],
    rule: Rule,
    sampling: Sampling,
    processor: Processor | None,
) -> tuple[Emission, State]:
    """:meth:`Emitter.emit` on tensors alone, and the processors' state; never asks the device for a value."""
    found = None
    if processor is None and rule.exact and rule.coupled and not sampling.truncates and hasattr(block, "draw"):
        found = cast(DrawingBlock, block).draw(noise.get(_EMISSION), sampling.temperature)
    if found is None:
        symbols, nats, states = _in_turn(block, unit, draft, state, noise, rule, sampling, processor)
    else:
        symbols, nats, states = *found, state
    units = _emitted_units(symbols, draft.symbols)
    after = map_state(lambda leaf: leaf[torch.arange(len(units), device=units.device), units - 1], states)
    return Emission(symbols.flatten(1), units * unit, nats.flatten(1)), after


def _emitted_units(chosen: Int[Tensor, "B R _"], drafted: Symbols) -> Counts:
    """One for each row, and one for each drafted unit up to the first that is not what was chosen."""
    num_rows, num_states, unit = chosen.shape
    if num_states == 1:
        return chosen.new_ones(num_rows)
    if unit == 1:
        held = chosen[:, :-1, 0] == drafted
    else:
        held = (chosen[:, :-1] == drafted.view(num_rows, num_states - 1, unit)).all(-1)
    return held.cumprod(1).sum(1).add_(1)


def _in_turn(
    block: Block,
    unit: int,
    draft: Draft,
    state: State,
    noise: dict[int, Tensor],
    rule: Rule,
    sampling: Sampling,
    processor: Processor | None,
) -> tuple[Int[Tensor, "B R _"], Float[Tensor, "B R _"], State]:
    """The units, symbol after symbol, with -log p of each, and the processors' state after each unit."""
    num_states = block.num_states
    drafted = _by_state(draft.symbols, num_states, unit)
    standing = torch.ones_like(drafted[:, :, 0], dtype=torch.bool)
    standing[:, -1] = False
    symbols = drafted[:, :, :0]
    laws = []
    states = _fork(processor, state, drafted)
    for place in range(unit):
        logits = block.logits(symbols)
        laws.append(logits)
        law = process(processor, sampling, states, logits)
        if sampling.greedy:
            symbol = law.argmax(-1)
        else:
            here = {stream: window[:, place::unit] for stream, window in noise.items()}
            proposal = Proposal(drafted[..., place], _log_q(draft, num_states, unit, place), standing)
            symbol = rule.judge(law, _noise(here), proposal)
        standing = standing & (symbol == drafted[..., place])
        symbols = torch.cat((symbols, symbol[..., None]), dim=-1)
        if processor is not None:
            states = processor.advance(states, symbol)
    log_p = torch.stack(laws, dim=2).double().log_softmax(-1)
    return symbols, -log_p.gather(-1, symbols[..., None]).squeeze(-1), states


def _noise(here: dict[int, Tensor]) -> Noise:
    if len(here) == 1:
        return Noise(here[_EMISSION])
    return Noise(here[_EMISSION], uniform(here[_ACCEPTANCE][..., 0]), here[_RESIDUAL])


def _fork(processor: Processor | None, state: State, drafted: Int[Tensor, "B R _"]) -> State:
    """The processors' state after each number of drafted units: leading dimensions (B, R)."""
    if processor is None:
        return ()
    forked = [state]
    for r in range(drafted.shape[1] - 1):
        for place in range(drafted.shape[2]):
            state = processor.advance(state, drafted[:, r, place])
        forked.append(state)
    return _stack(forked)


@dataclasses.dataclass(frozen=True)
class DraftChoice:
    """How a drafter chooses symbols in one round: as emission would from the same logits, with the same noise.

    Under a rule that is not coupled the noise is another, and the distribution drawn from is told.
    """

    processor: Processor | None
    sampling: Sampling
    coupled: bool
    vocab_size: int
    state: State
    noise: Float[Tensor, "B N V"] | None

    def __call__(
        self, logits: Float[Tensor, "B _"], drafted: Symbols
    ) -> tuple[Int[Tensor, "B 1"], Float[Tensor, "B V"] | None]:
        """The symbol after the committed ones and ``drafted``, and the log of the distribution it was drawn from.

        A drafter that has more symbols than the target never proposes those; of those it lacks, log q is -inf.
        """
        ahead = drafted.shape[1]
        logits = logits[:, : self.vocab_size]
        missing = self.vocab_size - logits.shape[-1]
        if missing > 0:
            logits = torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)
        state = self.state
        if self.processor is not None:
            for n in range(ahead):
                state = self.processor.advance(state, drafted[:, n])
        law = process(self.processor, self.sampling, state, logits)
        if self.noise is None:
            return law.argmax(-1, keepdim=True), None
        symbol = (law + self.noise[:, ahead]).argmax(-1, keepdim=True)
        return symbol, None if self.coupled else law.log_softmax(-1)

    @property
    def at_once(self) -> bool:
        """Whether a symbol is the argmax of ``logits / temperature + noise``, so that several may be chosen at once."""
        return self.processor is None and self.coupled and not self.sampling.truncates


def _stack(states: Sequence[State]) -> State:
    """States side by side: leading dimensions (B, R)."""
    if isinstance(states[0], Tensor):
        return torch.stack(list(states), dim=1)
    return tuple(_stack(parts) for parts in zip(*states, strict=True))


def _by_state(drafted: Symbols, num_states: int, unit: int) -> Int[Tensor, "B R _"]:
    """The drafted unit that follows each state; a filler after the last."""
    filler = drafted.new_zeros((len(drafted), num_states * unit - drafted.shape[1]))
    return torch.cat((drafted, filler), dim=1).unflatten(1, (num_states, unit))


def _log_q(draft: Draft, num_states: int, unit: int, place: int) -> Float[Tensor, "B R V"] | None:
    if draft.log_q is None:
        return None
    by_unit = draft.log_q.unflatten(1, (num_states - 1, unit))[:, :, place]
    return torch.cat((by_unit, torch.zeros_like(draft.log_q[:, :1])), dim=1)

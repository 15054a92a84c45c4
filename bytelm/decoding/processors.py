"""Processors: what changes the logits by the symbols that stand before, as pure state machines on tensors.

A forward judges several positions, each with its own prefix. So the state of a processor is a value: tensors whose
leading dimensions are rows, or rows and positions, which the caller expands and picks from with :func:`map_state`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.errors import DecodingError

State = Any
"""A tensor, or a tuple of states. Every tensor has the same leading dimensions *B, first the rows."""


@runtime_checkable
class Processor(Protocol):
    """Changes logits by the symbols before them. No method changes a state in place, and none but that of
    :class:`UserProcessor` waits for the device or has shapes that depend on values.
    """

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, vocab: int, device: torch.device) -> State:
        """The state (B, …) after each prompt, on ``device``, where later calls take place, too.

        Args:
            prompts: the symbols of each row, without BOS; any lengths, also 0.
            max_new: the most symbols that a state may be advanced over, drafted ones included.
            vocab: V, the number of symbols.
            device: where states and logits are.
        Raises:
            DecodingError: an option of the processor does not fit ``vocab``.
        """
        ...

    def advance(self, state: State, symbols: Int[Tensor, "*B"]) -> State:
        """The state after one more symbol, 0 … V - 1, of each; a rejected draft may be any symbol."""
        ...

    def apply(self, state: State, logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """The logits of the next symbol, changed; -inf for a symbol that must not follow."""
        ...


def map_state(fn: Callable[[Tensor], Tensor], state: State) -> State:
    """The state with ``fn`` of each of its tensors: how a caller expands or picks leading dimensions."""
    return fn(state) if isinstance(state, Tensor) else tuple(map_state(fn, part) for part in state)


class Processors:
    """Several processors, one after another; itself one. The order is the caller's.

    Where a processor would leave no symbol at all, it is passed over at that position. So of demands that cannot be met
    together the earlier one holds: a constraint that must never be broken comes first. The order of the others in
    transformers is :class:`LogitBias`, :class:`RepetitionPenalty`, :class:`NoRepeatNgram`, :class:`SuppressUntil`,
    :class:`UserProcessor`.
    """

    def __init__(self, processors: Sequence[Processor] = ()) -> None:
        self.processors = tuple(processors)

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, vocab: int, device: torch.device) -> State:
        """The states of all, in their order."""
        return tuple(processor.start(prompts, max_new, vocab, device) for processor in self.processors)

    def advance(self, state: State, symbols: Int[Tensor, "*B"]) -> State:
        """Advance each."""
        pairs = zip(self.processors, state, strict=True)
        return tuple(processor.advance(part, symbols) for processor, part in pairs)

    def apply(self, state: State, logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """Apply each to what the one before gave, unless nothing would be left."""
        for processor, part in zip(self.processors, state, strict=True):
            changed = processor.apply(part, logits)
            logits = torch.where((changed > -math.inf).any(-1, keepdim=True), changed, logits)
        return logits


class LogitBias:
    """Adds a number to the logit of a symbol, always or where it would complete a sequence; -inf forbids it.

    transformers' ``sequence_bias``, and its ``bad_words_ids`` with -inf. A sequence may begin in the prompt.

    Args:
        biases: a symbol, or a sequence of at least one, to what is added.
    Raises:
        DecodingError: an empty sequence, a symbol below 0, or a bias that is NaN or +inf.
    """

    def __init__(self, biases: Mapping[int | Sequence[int], float]) -> None:
        sequences = [((key,) if isinstance(key, int | np.integer) else tuple(key)) for key in biases]
        for sequence, bias in zip(sequences, biases.values(), strict=True):
            _check_sequence("logit bias", sequence)
            if math.isnan(bias) or bias == math.inf:
                raise DecodingError(f"logit bias of {list(sequence)}: found {bias}, expected a number or -inf")
        self._largest = max((max(sequence) for sequence in sequences), default=-1)
        self._tails = _Tails(sequences)
        self._bias_N = torch.tensor([float(bias) for bias in biases.values()], dtype=torch.float64)
        self._rounds = _distinct_rounds([sequence[-1] for sequence in sequences])

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, vocab: int, device: torch.device) -> State:
        """The last symbols of each prompt."""
        _check_vocab("logit bias", self._largest, vocab)
        self._bias_N = self._bias_N.to(device)
        self._rounds = [(which.to(device), last.to(device)) for which, last in self._rounds]
        return self._tails.start(prompts, device)

    def advance(self, state: State, symbols: Int[Tensor, "*B"]) -> State:
        """The last symbols after one more."""
        return self._tails.advance(state, symbols)

    def apply(self, state: State, logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """Add the biases of the sequences that the symbol would complete."""
        bias_BN = torch.where(self._tails.match(state), self._bias_N, 0.0).to(logits.dtype)
        total = torch.zeros_like(logits)
        for which, last in self._rounds:
            total = total.index_add(-1, last, bias_BN[..., which])
        return logits + total


class RepetitionPenalty:
    """Makes every symbol that stands before less likely (Keskar et al., arXiv 1909.05858, section 4.1).

    transformers' ``repetition_penalty``: a positive logit is divided by the penalty, a negative one multiplied, once
    for each symbol of prompt and output.

    Raises:
        DecodingError: the penalty is not a finite number above 0.
    """

    def __init__(self, penalty: float) -> None:
        if not (penalty > 0 and math.isfinite(penalty)):
            raise DecodingError(f"repetition_penalty: found {penalty}, expected a number above 0")
        self.penalty = float(penalty)

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, vocab: int, device: torch.device) -> State:
        """Which symbols occur: bool (B, V)."""
        seen = np.zeros((len(prompts), vocab), dtype=np.bool_)
        for row, prompt in zip(seen, prompts, strict=True):
            row[prompt] = True
        return torch.from_numpy(seen).to(device)

    def advance(self, state: Bool[Tensor, "*B V"], symbols: Int[Tensor, "*B"]) -> State:
        """With the new symbol."""
        return state.scatter(-1, symbols[..., None], True)

    def apply(self, state: Bool[Tensor, "*B V"], logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """Penalise what occurs."""
        penalised = torch.where(logits < 0, logits * self.penalty, logits / self.penalty)
        return torch.where(state, penalised, logits)


class CountPenalty:
    """Lowers the logit of a symbol by how often it was generated: ``frequency`` for each time, ``presence`` once.

    ``frequency_penalty`` and ``presence_penalty`` of OpenAI's completions; negative ones raise it. The prompt does not
    count.

    Raises:
        DecodingError: a penalty is not finite.
    """

    def __init__(self, frequency: float = 0.0, presence: float = 0.0) -> None:
        for name, value in (("frequency_penalty", frequency), ("presence_penalty", presence)):
            if not math.isfinite(value):
                raise DecodingError(f"{name}: found {value}, expected a number")
        self.frequency, self.presence = float(frequency), float(presence)

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, vocab: int, device: torch.device) -> State:
        """How often each symbol was generated: float (B, V), exact up to 2**24."""
        return torch.zeros(len(prompts), vocab, device=device)

    def advance(self, state: Float[Tensor, "*B V"], symbols: Int[Tensor, "*B"]) -> State:
        """With the new symbol."""
        return state.scatter_add(-1, symbols[..., None], torch.ones_like(state[..., :1]))

    def apply(self, state: Float[Tensor, "*B V"], logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """Lower what was generated."""
        return logits - (self.frequency * state + self.presence * (state > 0)).to(logits.dtype)


class NoRepeatNgram:
    """Forbids the symbol that would complete an n-gram that occurs before, in prompt and output.

    transformers' ``no_repeat_ngram_size``.

    Raises:
        DecodingError: ``n`` is below 1.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise DecodingError(f"no_repeat_ngram_size: found {n}, expected at least 1")
        self.n = n

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, vocab: int, device: torch.device) -> State:
        """What stands before and how much it is."""
        return start_history(prompts, max(max_new, self.n), device)

    def advance(self, state: State, symbols: Int[Tensor, "*B"]) -> State:
        """With the new symbol."""
        return advance_history(state, symbols)

    def apply(self, state: State, logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """Forbid what followed the last n - 1 symbols before."""
        history, length = state
        back = torch.arange(1 - self.n, 0, device=history.device)
        suffix = history.gather(-1, (length[..., None] + back).clamp(min=0))
        windows = history.unfold(-1, self.n, 1)
        complete = torch.arange(self.n, history.shape[-1] + 1, device=history.device) <= length[..., None]
        found = (windows[..., :-1] == suffix[..., None, :]).all(-1) & complete
        vocab = logits.shape[-1]
        banned = torch.zeros(*logits.shape[:-1], vocab + 1, dtype=torch.bool, device=logits.device)
        banned = banned.scatter(-1, torch.where(found, windows[..., -1], vocab), True)
        return logits.masked_fill(banned[..., :vocab], -math.inf)


class SuppressUntil:
    """Forbids the symbol that would complete one of the sequences, among the first ``min_new`` generated symbols.

    transformers' ``min_new_tokens``. Only generated symbols match, never the prompt, as for
    :class:`~bytelm.decoding.SequenceStop`.

    Args:
        sequences: such as the beginning of the code word of EOS that no word of text shares
            (``bytelm.encoding.control_start``); of its whole word, only the last symbol would be forbidden.
        min_new: how many symbols come before the first that may complete a sequence.
        unit: a sequence counts only where it begins at a multiple of so many generated symbols.
    Raises:
        DecodingError: an empty sequence, a symbol below 0, ``min_new`` below 0 or ``unit`` below 1.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], min_new: int, *, unit: int = 1) -> None:
        for sequence in sequences:
            _check_sequence("min_new_tokens", sequence)
        if min_new < 0:
            raise DecodingError(f"min_new_tokens: found {min_new}, expected at least 0")
        if unit < 1:
            raise DecodingError(f"min_new_tokens: found a unit of {unit}, expected at least 1")
        self.min_new, self.unit = min_new, unit
        self._sequences = [tuple(sequence) for sequence in sequences]
        self._tails = _Tails(self._sequences)

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, vocab: int, device: torch.device) -> State:
        """The last generated symbols, none so far, and their number."""
        _check_vocab("min_new_tokens", max((max(sequence) for sequence in self._sequences), default=-1), vocab)
        self._last_N = torch.tensor([sequence[-1] for sequence in self._sequences], dtype=torch.int64, device=device)
        self._before_N = torch.tensor([len(s) - 1 for s in self._sequences], dtype=torch.int64, device=device)
        tails = self._tails.start([prompt[:0] for prompt in prompts], device)
        return tails, torch.zeros(len(prompts), dtype=torch.int64, device=device)

    def advance(self, state: State, symbols: Int[Tensor, "*B"]) -> State:
        """After one more generated symbol."""
        tails, count = state
        return self._tails.advance(tails, symbols), count + 1

    def apply(self, state: State, logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """Forbid the last symbols of the sequences whose others stand before, as long as it is too early."""
        tails, count = state
        aligned = (count[..., None] - self._before_N) % self.unit == 0
        early = (count < self.min_new)[..., None] & aligned & self._tails.match(tails)
        vocab = logits.shape[-1]
        banned = torch.zeros(*logits.shape[:-1], vocab + 1, dtype=torch.bool, device=logits.device)
        banned = banned.scatter(-1, torch.where(early, self._last_N, vocab), True)
        return logits.masked_fill(banned[..., :vocab], -math.inf)


class UserProcessor:
    """A function with the signature of transformers' ``LogitsProcessor``, called for each position by itself.

    Args:
        fn: ``fn(input_ids, scores)``: int64 (1, n), prompt, output and drafted symbols before the position; float
            (1, V), a copy; returns (1, V). It must depend on nothing else, or drafting would change the output.
    """

    def __init__(self, fn: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.fn = fn

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, vocab: int, device: torch.device) -> State:
        """What stands before and how much it is."""
        return start_history(prompts, max_new, device)

    def advance(self, state: State, symbols: Int[Tensor, "*B"]) -> State:
        """With the new symbol."""
        return advance_history(state, symbols)

    def apply(self, state: State, logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """Ask the function about each position.

        Raises:
            DecodingError: it returned something other than a tensor (1, V).
        """
        history, length = state
        scores = logits.flatten(0, -2).clone()
        for place, (symbols, count) in enumerate(zip(history.flatten(0, -2), length.flatten().tolist(), strict=True)):
            result = self.fn(symbols[None, :count].clone(), scores[place, None])
            if not isinstance(result, Tensor) or result.shape != (1, scores.shape[-1]):
                found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
                raise DecodingError(f"logits processor: found {found} returned, expected (1, {scores.shape[-1]})")
            scores[place] = result[0]
        return scores.view_as(logits)


# Parts of states ------------------------------------------------------------------------------------------------------


def start_history(prompts: Sequence[NDArray[Any]], max_new: int, device: torch.device) -> State:
    """The prompts in a buffer with room for ``max_new`` more, int64 (B, room), and their lengths (B,)."""
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    buffer = np.zeros((len(prompts), int(lengths.max(initial=0)) + max(max_new, 1)), dtype=np.int64)
    for row, prompt in zip(buffer, prompts, strict=True):
        row[: len(prompt)] = prompt
    return torch.from_numpy(buffer).to(device), torch.from_numpy(lengths).to(device)


def advance_history(state: State, symbols: Int[Tensor, "*B"]) -> State:
    """The buffer and the lengths with one more symbol; where it is full, the last is overwritten."""
    history, length = state
    room = history.shape[-1]
    place = length.clamp(max=room - 1)[..., None]
    return history.scatter(-1, place, symbols[..., None].to(history.dtype)), (length + 1).clamp(max=room)


class _Tails:
    """Which of some sequences stand before, all but their last symbols. State: the last symbols, -1 where none is."""

    def __init__(self, sequences: Sequence[tuple[int, ...]]) -> None:
        self._width = max((len(sequence) - 1 for sequence in sequences), default=0)
        padded = [(-1,) * (self._width + 1 - len(sequence)) + sequence[:-1] for sequence in sequences]
        self._expected = torch.tensor(padded, dtype=torch.int64).view(len(sequences), self._width)

    def start(self, prompts: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
        self._expected = self._expected.to(device)
        tails = np.full((len(prompts), self._width), -1, dtype=np.int64)
        for row, prompt in zip(tails, prompts, strict=True):
            count = min(len(prompt), self._width)
            row[self._width - count :] = prompt[len(prompt) - count :]
        return torch.from_numpy(tails).to(device)

    def advance(self, tails: Tensor, symbols: Tensor) -> Tensor:
        return torch.cat((tails, symbols[..., None].to(tails.dtype)), dim=-1)[..., 1:]

    def match(self, tails: Tensor) -> Bool[Tensor, "*B N"]:
        return ((self._expected < 0) | (tails[..., None, :] == self._expected)).all(-1)


def _distinct_rounds(last: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Numbers and last symbols of the sequences, in rounds without a repeated symbol: so the sum has one order."""
    rounds: list[dict[int, int]] = []
    for number, symbol in enumerate(last):
        free = next((taken for taken in rounds if symbol not in taken), None)
        if free is None:
            rounds.append(free := {})
        free[symbol] = number
    return [(torch.tensor(list(taken.values())), torch.tensor(list(taken))) for taken in rounds]


def _check_sequence(where: str, sequence: Sequence[int]) -> None:
    if len(sequence) == 0 or min(sequence) < 0:
        raise DecodingError(f"{where}: found the sequence {list(sequence)}, expected symbols, at least one, from 0 on")


def _check_vocab(where: str, largest: int, vocab: int) -> None:
    if largest >= vocab:
        raise DecodingError(f"{where}: found the symbol {largest}, expected 0 to {vocab - 1}")

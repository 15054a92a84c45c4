"""Drafts from the model itself, at no further forward."""

from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from bytelm.compilation import compiled
from bytelm.decoding.drafters.base import StatelessDrafter
from bytelm.decoding.emission import DraftChoice
from bytelm.decoding.protocols import Block, Choose, Draft, Round, Target
from bytelm.errors import DecodingError
from bytelm.graphs import Graphs
from bytelm.shapes import Counts, Logits, Symbols


@runtime_checkable
class GuessingBlock(Block, Protocol):
    """A block whose model also guesses further ahead than its law reaches."""

    def guess(self, emitted: Symbols, counts: Counts) -> "Guess":
        """A guess of what follows the first ``counts[b]`` >= 1 of ``emitted``."""
        ...


@runtime_checkable
class Guess(Protocol):
    """The model's own guess of the symbols after the committed ones."""

    def logits(self, drafted: Symbols) -> Logits:
        """Logits of the symbol after the committed ones and after ``drafted``."""
        ...


@runtime_checkable
class DrawingGuess(Guess, Protocol):
    """A guess that can choose several symbols at once."""

    def draw(self, num: int, noise: Float64[Tensor, "B N V"] | None, temperature: float) -> Symbols | None:
        """The next ``num`` symbols, as of :meth:`bytelm.decoding.protocols.DrawingBlock.draw`; None where it cannot."""
        ...


class HeadsDrafter(StatelessDrafter):
    """Propose with the model's further heads, by the rule of emission itself: the same noise at the same position.

    Under ``next`` these are heads 2 … K of the state that gave the last symbol, or a token model's draft heads. Under
    ``chain`` they are the model's next-patch heads: a state guessed from the last one and the patch it gave, then the
    model's own heads on it.

    Args:
        num: N, symbols to draft.
    """

    name = "heads"

    def __init__(self, num: int) -> None:
        self.max_draft = num
        self._propose = _propose
        self._graphs: Graphs | None = None

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Check that the target's blocks can guess."""
        reach = getattr(target, "max_guess", 0)
        if self.max_draft > reach:
            raise DecodingError(
                f"draft 'heads': found {self.max_draft} symbols, expected at most {reach} for this model and law"
            )
        self._propose = compiled(_propose) if target.fixed_shapes else _propose
        self._graphs = getattr(target, "graphs", None)

    def propose(self, round_: Round) -> Draft:
        """Draft (B, N), one symbol after another."""
        block = cast(GuessingBlock, round_.block)  # the target's can; to ask a protocol takes as long as a head
        counts, num = round_.counts.clamp(min=1), self.max_draft
        choose = round_.choice(num)
        if self._graphs is None or not isinstance(choose, DraftChoice) or choose.processor is not None:
            return self._propose(block, round_.emitted, counts, num, choose)
        return self._graphs.run(self._propose, block, round_.emitted, counts, num, choose)


def _propose(block: GuessingBlock, emitted: Symbols, counts: Counts, num: int, choose: Choose) -> Draft:
    guess = block.guess(emitted, counts)
    if isinstance(choose, DraftChoice) and choose.at_once and hasattr(guess, "draw"):
        at_once = cast(DrawingGuess, guess).draw(num, choose.noise, choose.sampling.temperature)
        if at_once is not None:
            return Draft(at_once, source=HeadsDrafter.name)
    drafted = emitted[:, :0]
    log_q: list[Float[Tensor, "B V"]] = []
    for _ in range(num):
        symbol, law = choose(guess.logits(drafted), drafted)
        drafted = torch.cat((drafted, symbol), dim=1)
        log_q += [] if law is None else [law]
    return Draft(drafted, log_q=torch.stack(log_q, dim=1) if log_q else None, source=HeadsDrafter.name)

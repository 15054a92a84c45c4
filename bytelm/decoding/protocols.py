"""What the decoding loop needs from a model under a law (a target) and from a drafter. Nothing more."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.shapes import Counts, Symbols

RowIndices = Int[Tensor, " _"]
"""Rows of a batch to keep, in this order; a row may be named more than once."""

Prefix = Int[Tensor, "B R _"]
"""For each state, the symbols of its unit so far."""

UnitLogits = Float[Tensor, "B R V"]
"""For each state, the logits of the next symbol of its unit."""


@runtime_checkable
class Block(Protocol):
    """What one forward made known: R states per row, each with the law of the ``Target.unit`` symbols after it.

    State 0 follows the last committed symbol. State r follows the first r units of the draft that the forward was run
    on; what it knows is the law as long as those are what was emitted.
    """

    num_states: int
    """R: one more than the drafted units."""

    def logits(self, prefix: Prefix) -> UnitLogits:
        """The law's logits of the symbol after ``prefix``, fewer than ``Target.unit`` symbols, of each state's unit."""
        ...

    def select(self, rows: RowIndices) -> "Block":
        """The block of these rows."""
        ...


@runtime_checkable
class DrawingBlock(Block, Protocol):
    """A block that can choose the symbols of all units at once, from the logits that :meth:`Block.logits` gives."""

    def draw(
        self, noise: Float64[Tensor, "B N V"] | None, temperature: float
    ) -> tuple[Int[Tensor, "B R _"], Float64[Tensor, "B R _"]] | None:
        """Each symbol of each unit, the argmax of ``logits / temperature + noise`` given those before it, and its
        ``-log softmax(logits)``; None where it cannot. Without noise the argmax of the logits. N is R units.
        """
        ...


@runtime_checkable
class Target(Protocol):
    """A model under one law, with its cache. Holds the state of one running batch.

    Slots of the cache are overwritten by position: a rejected draft needs no roll-back.
    """

    unit: int
    """Symbols that one state knows the law of without any draft: P for ``product`` and ``chain``, else 1."""

    vocab_size: int
    """V, the number of symbols."""

    device: torch.device
    """Where its tensors are, and where those that it is given must be."""

    fixed_shapes: bool
    """Whether a forward is compiled for its shapes, so that the batch should shrink in few steps."""

    def start(self, prompts: Sequence[NDArray[Any]], num_new: int | Sequence[int], max_draft: int) -> Block:
        """Read the prompts (any lengths; a BOS patch is put before each) and know the law of what follows: R = 1.

        Args:
            prompts: one array of symbols per row.
            num_new: the most symbols that any row will commit, or that each row will.
            max_draft: the most drafted symbols that any forward will be run on.
        Raises:
            DecodingError: a prompt and ``num_new`` symbols do not fit the model's context; names the row.
        """
        ...

    def advance(self, emitted: Symbols, counts: Counts, draft: Symbols) -> Block:
        """Commit the first ``counts[b]`` of ``emitted`` to row b and run one forward on them and on ``draft`` (B, N).

        ``emitted`` holds R units of the block before, N is a multiple of ``unit``, and R = N / unit + 1 states come
        back. ``counts[b]`` is a multiple of ``unit``; 0 for a row that has finished: it stands still, and what its part
        of the next block says does not matter.
        """
        ...

    def select(self, rows: RowIndices) -> None:
        """Keep these rows of the batch, in this order; a row named twice is copied."""
        ...

    def rewind(self, counts: Counts) -> None:
        """Forget the last ``counts[b]`` committed symbols of row b, a multiple of ``unit``, not those of the prompt."""
        ...


@dataclasses.dataclass(frozen=True)
class Draft:
    """What a drafter proposes to follow the committed symbols of each row.

    Attributes:
        symbols: (B, N); N is a multiple of the target's unit, and 0 for no draft.
        proposed: for each row how many of its symbols were meant; the others are filler. None: all.
        log_q: (B, N, V) natural log of the distribution that each symbol was drawn from; None where it was not drawn,
            as in a look-up. Only rejection sampling asks.
        source: name of the drafter.
    """

    symbols: Symbols
    proposed: Counts | None = None
    log_q: Float[Tensor, "B N V"] | None = None
    source: str = "none"

    def select(self, rows: RowIndices) -> "Draft":
        """The draft of these rows."""
        return Draft(
            self.symbols[rows],
            None if self.proposed is None else self.proposed[rows],
            None if self.log_q is None else self.log_q[rows],
            self.source,
        )


@runtime_checkable
class Choose(Protocol):
    """The drafting side of the rule, for one round: see :class:`bytelm.decoding.rules.DraftChoice`."""

    def __call__(
        self, logits: Float[Tensor, "B _"], drafted: Symbols
    ) -> tuple[Int[Tensor, "B 1"], Float[Tensor, "B V"] | None]:
        """The symbol that a drafter whose guess is ``logits`` proposes after ``drafted``, and its distribution.

        The same noise that emission uses at that position; log q only where the rule needs it.
        """
        ...


@runtime_checkable
class Books(Protocol):
    """What the host knows of the rows."""

    @property
    def room(self) -> int:
        """The most symbols that any row may still commit."""
        ...

    def histories(self) -> Sequence[NDArray[Any]]:
        """Prompt and generated symbols of each row, the committed ones included."""
        ...


@dataclasses.dataclass(frozen=True)
class Round:
    """What a drafter may look at: one round's emission, with the rows that go on.

    Attributes:
        block: the block that was emitted from.
        emitted: (B, R * unit) symbols; the first ``counts[b]`` of row b were committed.
        counts: (B,), at least ``unit`` in every row that goes on.
        unit: of the target.
        choice: the rule, to draft so many symbols by.
        books: looked up for who asks.
    """

    block: Block
    emitted: Symbols
    counts: Counts
    unit: int
    choice: Callable[[int], Choose]
    books: Books

    @property
    def histories(self) -> Sequence[NDArray[Any]]:
        """Prompt and generated symbols of each row, the committed ones included."""
        return self.books.histories()

    @property
    def room(self) -> int:
        """The most symbols that any row may still commit."""
        return self.books.room


@runtime_checkable
class Drafter(Protocol):
    """Proposes symbols for the next forward to verify. Changes the speed, never the output."""

    name: str

    @property
    def max_draft(self) -> int:
        """The most symbols that :meth:`propose` returns for a row."""
        ...

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Begin a run on these rows; no row of an earlier one is left."""
        ...

    def propose(self, round_: Round) -> Draft:
        """Draft what follows the committed symbols."""
        ...

    def select(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows of the batch, in this order."""
        ...

    def observe(self, accepted: NDArray[np.int64], seconds: float) -> None:
        """After each round: how many symbols each row committed, and what the whole round took."""
        ...


@runtime_checkable
class JoiningBlock(Block, Protocol):
    """A block of a batch that rows join while it runs."""

    def join(self, other: Any) -> "Block":
        """The rows of this block and then those of another of the same model, which may have another R.

        The states that a row lacks are repetitions of its last one, at which nobody will look.
        """
        ...


@runtime_checkable
class JoiningTarget(Target, Protocol):
    """A target of a batch that rows join while it runs."""

    def new(self) -> Any:
        """A target of the same model and law that holds no rows yet."""
        ...

    def join(self, other: Any) -> None:
        """Take up the rows of another target of the same model and law, after one's own.

        The other is of no use afterwards. Memory is cut or grown to what the rows that are here now will need. The one
        method that may wait for the device.
        """
        ...


@runtime_checkable
class JoiningDrafter(Drafter, Protocol):
    """A drafter for a batch that rows join while it runs."""

    def join(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Rows arrive, after those of the batch; ``target`` is theirs, with no others yet."""
        ...

"""What the decoding loop needs from a model under a law (a target) and from a drafter. Nothing more."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.shapes import Counts, Logits, Rows, Symbols

Choose = Callable[[Logits, int], Symbols]
"""``choose(logits, ahead)``: the symbol (B, 1) that the rule would emit from ``logits`` at the position ``ahead``
symbols after the next one of each row, with the same noise that emission at that position uses."""


@runtime_checkable
class Block(Protocol):
    """What one forward of the target made known about the next symbols of every row.

    ``chain`` and ``product`` know the law of a whole patch; ``next`` knows it for one symbol, and for each further one
    as long as the draft that the forward was run on is what was emitted.
    """

    width: int
    """The most symbols that a row can emit from this block."""

    def logits(self, emitted: Symbols) -> Logits:
        """The law's logits of the symbol that follows the N < ``width`` symbols emitted from this block so far."""
        ...

    def covers(self, emitted: Symbols) -> Rows:
        """Rows for which :meth:`logits` of ``emitted`` is the law: what the forward assumed is what was emitted."""
        ...

    def draft_logits(self, emitted: Symbols, counts: Counts, drafted: Symbols) -> Logits:
        """The heads' own guess, not the law: logits of the symbol after the first ``counts[b]`` >= 1 of ``emitted`` and
        then ``drafted`` (N < ``Target.max_draft`` symbols), from the state that gave the last emitted symbol.
        """
        ...


@runtime_checkable
class Target(Protocol):
    """A model under one law, with its cache. Holds the state of one running batch."""

    max_draft: int
    """How many drafted symbols one forward can verify; 0 for laws that need none."""

    device: torch.device
    """Where its tensors are, and where those that it is given must be."""

    def start(self, prompts: Sequence[NDArray[np.uint8]], num_new: int) -> Block:
        """Read the prompts (any lengths; a BOS patch is put before each) and know the law of what follows.

        Raises:
            DecodingError: a prompt and ``num_new`` symbols do not fit the model's context; names the row.
        """
        ...

    def advance(self, emitted: Symbols, counts: Counts, draft: Symbols) -> Block:
        """Commit the first ``counts[b]`` of ``emitted`` to row b and run one forward on them and on ``draft`` (B, N).

        A row that has finished has ``counts[b] == 0``; what its part of the next block says does not matter.
        """
        ...


@runtime_checkable
class Drafter(Protocol):
    """Proposes symbols for the next forward to verify."""

    def propose(self, block: Block, emitted: Symbols, counts: Counts, choose: Choose) -> Symbols:
        """Draft (B, N) symbols to follow the first ``counts[b]`` of ``emitted``; N may be 0."""
        ...

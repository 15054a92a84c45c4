"""A language model small enough to know everything about: a table, and a context of two symbols."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.testing.reference import warp_reference

ORDER = 2
"""Symbols of the context."""

UNWRITTEN = -1
"""In place of a symbol that nobody wrote; a law that is shown it answers NaN."""

_ROWS = 61


def context_of(history: Sequence[int]) -> tuple[int, ...]:
    """The last two symbols, zeros where there are fewer."""
    last = [int(symbol) for symbol in history[-ORDER:]]
    return (*[0] * (ORDER - len(last)), *last)


@dataclasses.dataclass(frozen=True, eq=False)
class ToyLaw:
    """A Markov law of order 2: the logits are a row of a table, chosen by a hash of the last two symbols.

    Attributes:
        table: (61, V) logits.
    """

    table: NDArray[np.float64]

    @classmethod
    def random(cls, vocab: int, seed: int, scale: float = 2.0) -> "ToyLaw":
        """Normal logits of deviation ``scale``."""
        return cls(np.random.default_rng(seed).normal(0.0, scale, (_ROWS, vocab)))

    def near(self, seed: int, distance: float = 1.0) -> "ToyLaw":
        """This law with normal noise of deviation ``distance`` on its logits: a draft model, good but not perfect."""
        return ToyLaw(self.table + np.random.default_rng(seed).normal(0.0, distance, self.table.shape))

    @property
    def vocab(self) -> int:
        """V, the number of symbols."""
        return self.table.shape[1]

    def logits(self, history: Sequence[int]) -> NDArray[np.float64]:
        """Logits (V,) of the symbol after ``history``."""
        before, last = context_of(history)
        return self.table[_hash(before, last)]

    def probabilities(
        self, history: Sequence[int], temperature: float = 1.0, top_k: int | None = None
    ) -> tuple[float, ...]:
        """The law (V,) of the symbol after ``history``; at temperature 0 all of it on the largest logit."""
        before, last = context_of(history)
        return self._row(_hash(before, last), temperature, top_k)

    @functools.cached_property
    def _known(self) -> dict[tuple[int, float, int | None], tuple[float, ...]]:
        return {}

    def _row(self, row: int, temperature: float, top_k: int | None) -> tuple[float, ...]:
        key = row, temperature, top_k
        if key not in self._known:
            logits = self.table[row]
            if temperature == 0:
                p = np.eye(self.vocab)[int(np.argmax(logits))]
            else:
                p = np.exp(warp_reference(logits, temperature, top_k))
            self._known[key] = tuple(p.tolist())
        return self._known[key]

    def joint(
        self, prompt: Sequence[int], length: int, temperature: float = 1.0, top_k: int | None = None
    ) -> NDArray[np.float64]:
        """Probabilities of all V ** ``length`` strings after ``prompt``, in lexicographic order."""
        cells = []
        for string in itertools.product(range(self.vocab), repeat=length):
            history, p = list(prompt), 1.0
            for symbol in string:
                p *= self.probabilities(history, temperature, top_k)[symbol]
                history.append(symbol)
            cells.append(p)
        return np.array(cells)

    def batch(self, context: Int[Tensor, "*B _"]) -> Float[Tensor, "*B V"]:
        """Logits in float64 after contexts of at least two symbols; NaN where one of these two was never written."""
        before, last = context[..., -2], context[..., -1]
        logits = torch.from_numpy(self.table).to(context.device)[_hash(before, last)]
        return logits.masked_fill(((before == UNWRITTEN) | (last == UNWRITTEN))[..., None], torch.nan)


IntOrTensor = TypeVar("IntOrTensor", int, Tensor)


def _hash(before: IntOrTensor, last: IntOrTensor) -> IntOrTensor:
    """Row of the table; contexts of the first three symbols do not collide."""
    return (before * 17 + last * 5 + 3) % _ROWS

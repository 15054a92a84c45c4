"""The emitters of a batch whose rows need not have the same options: one for each set of options."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.decoding.emission import Emission, Emitter
from bytelm.decoding.protocols import Block, Choose, Draft
from bytelm.decoding.transfer import to_device
from bytelm.graphs import Graphs
from bytelm.shapes import Symbols


class Emitters:
    """Emitters that share a batch. Rows of the same options share an emitter; one forward serves all of them.

    Args:
        emitter: of the rows of the batch, until others join.
        num_rows: of the batch.
    """

    def __init__(self, emitter: Emitter, num_rows: int) -> None:
        self._emitters = [emitter]
        self._owner_B = np.zeros(num_rows, dtype=np.int64)
        self._device = emitter.device
        self._index()

    def __len__(self) -> int:
        return len(self._emitters)

    def join(self, other: "Emitters") -> None:
        """Take up the rows of another, after one's own."""
        number = np.zeros(len(other), dtype=np.int64)
        for n, arriving in enumerate(other._emitters):
            shared = next((m for m, emitter in enumerate(self._emitters) if emitter.shares(arriving)), None)
            if shared is None:
                self._emitters.append(arriving)
            else:
                self._emitters[shared].join(arriving)
            number[n] = len(self._emitters) - 1 if shared is None else shared
        self._owner_B = np.append(self._owner_B, number[other._owner_B])
        self._index()

    def select(self, places: NDArray[np.int64]) -> None:
        """Keep the rows at these places of the batch, in this order."""
        owners, rank_B = self._owner_B[places], np.zeros_like(self._owner_B)
        for n in range(len(self)):
            own = self._owner_B == n
            rank_B[own] = np.arange(int(own.sum()))
        kept = np.unique(owners)
        for n in kept.tolist():
            self._emitters[n].select(rank_B[places[owners == n]])
        self._emitters = [self._emitters[n] for n in kept.tolist()]
        self._owner_B = np.searchsorted(kept, owners)
        self._index()

    def emit(
        self, block: Block, draft: Draft, unit: int, positions: NDArray[np.int64], graphs: Graphs | None = None
    ) -> Emission:
        """:meth:`Emitter.emit` for every row; replayed where one emitter has all of them."""
        if len(self) == 1:
            return self._emitters[0].emit(block, draft, unit, positions, graphs)
        parts = [
            emitter.emit(block.select(rows), draft.select(rows), unit, positions[places])
            for emitter, places, rows in zip(self._emitters, self._places, self._rows, strict=True)
        ]
        return Emission(*(torch.cat(columns)[self._back_B] for columns in zip(*parts, strict=True)))

    def choice(self, positions: NDArray[np.int64], most: int) -> Choose:
        """:meth:`Emitter.choice` for every row."""
        if len(self) == 1:
            return self._emitters[0].choice(positions, most)
        choices = [
            emitter.choice(positions[places], most)
            for emitter, places in zip(self._emitters, self._places, strict=True)
        ]
        return _Choices(choices, self._rows, self._back_B)

    def _index(self) -> None:
        """Where the rows of each emitter are in the batch, and where each row is among those of all emitters."""
        self._places = [np.flatnonzero(self._owner_B == n) for n in range(len(self))]
        self._rows = [to_device(places, self._device) for places in self._places]
        order = np.concatenate(self._places)
        self._back_B = to_device(np.argsort(order), self._device)


@dataclasses.dataclass(frozen=True)
class _Choices:
    """The choices of several emitters as one; their rule is coupled, so no distribution is told."""

    choices: Sequence[Choose]
    rows: Sequence[Int[Tensor, " _"]]
    back_B: Int[Tensor, " B"]

    def __call__(self, logits: Float[Tensor, "B _"], drafted: Symbols) -> tuple[Int[Tensor, "B 1"], None]:
        """The symbol that each row's emitter would choose."""
        parts = [choose(logits[rows], drafted[rows])[0] for choose, rows in zip(self.choices, self.rows, strict=True)]
        return torch.cat(parts)[self.back_B], None

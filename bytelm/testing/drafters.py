"""Drafters that know what is right: they make every pattern of accepted and rejected drafts happen on purpose."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.decoding import Draft, Round, Target
from bytelm.testing.jobs import proposals


class ProposalDrafter:
    """Propose what a table says for each position of the output, whatever was generated.

    Args:
        table: for each row, the symbol to propose at each position; fewer at its end.
        num: N, symbols to draft; rounded down to whole units of the target.
    """

    name = "proposals"

    def __init__(self, table: Sequence[Sequence[int]], num: int) -> None:
        self.max_draft, self._table = num, table
        self._rows = np.zeros(0, dtype=np.int64)
        self._begins = np.zeros(0, dtype=np.int64)

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Begin a run on as many rows as the table has."""
        assert len(prompts) == len(self._table)
        self.max_draft -= self.max_draft % target.unit
        self._rows, self._begins = np.arange(len(prompts)), np.array([len(prompt) for prompt in prompts])

    def propose(self, round_: Round) -> Draft:
        """Draft (B, N); N is smaller where the table ends."""
        positions = [len(history) for history in round_.histories] - self._begins
        told = [
            list(self._table[row][position : position + self.max_draft])
            for row, position in zip(self._rows.tolist(), positions.tolist(), strict=True)
        ]
        width = -(-max(map(len, told)) // round_.unit) * round_.unit
        filled = torch.tensor([row + [0] * (width - len(row)) for row in told], dtype=torch.int64)
        lengths = torch.tensor([len(row) for row in told])
        device = round_.emitted.device
        return Draft(filled.view(len(told), width).to(device), proposed=lengths.to(device), source=self.name)

    def select(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows of the batch, in this order."""
        self._rows, self._begins = self._rows[rows], self._begins[rows]

    def observe(self, accepted: NDArray[np.int64], seconds: float) -> None:
        """Nothing is learnt."""


class ScriptedDrafter(ProposalDrafter):
    """Propose right and wrong symbols in a pattern over the positions of the output.

    Args:
        answers: what each row will be.
        num: N.
        vocab: V.
        pattern: of ``1`` (right) and ``0`` (wrong), gone round.
    """

    name = "scripted"

    def __init__(self, answers: Sequence[Sequence[int]], num: int, vocab: int, pattern: str) -> None:
        super().__init__(proposals(pattern, answers, vocab), num)


class OracleDrafter(ScriptedDrafter):
    """Propose what the target will say."""

    name = "oracle"

    def __init__(self, answers: Sequence[Sequence[int]], num: int, vocab: int) -> None:
        super().__init__(answers, num, vocab, "1")


class WrongDrafter(ScriptedDrafter):
    """Never propose what the target will say."""

    name = "wrong"

    def __init__(self, answers: Sequence[Sequence[int]], num: int, vocab: int) -> None:
        super().__init__(answers, num, vocab, "0")


class RandomDrafter(ProposalDrafter):
    """Propose symbols that have nothing to do with the target.

    Args:
        num_rows: of the batch.
        max_new: symbols that each row may generate.
        num: N.
        vocab: V.
        seed: which symbols.
    """

    name = "random"

    def __init__(self, num_rows: int, max_new: int, num: int, vocab: int, seed: int = 0) -> None:
        super().__init__(np.random.default_rng(seed).integers(0, vocab, (num_rows, max_new + num)).tolist(), num)

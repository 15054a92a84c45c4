"""Drafts from a small model of the same tokenizer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from bytelm.decoding.protocols import Block, Draft, JoiningTarget, Round, Target
from bytelm.errors import DecodingError
from bytelm.shapes import Counts, Symbols

_CATCH_UP = 16
_UNKNOWN = 0


class ModelDrafter:
    """Propose what a small model would emit, by the rule of emission itself: the same noise at the same position.

    The small model may have more or fewer symbols than the target (padded vocabularies): those that it alone has are
    never proposed, those that it lacks have probability zero, and it reads its symbol 0 in their place.

    Args:
        small: the small model under a law of its own, of unit 1 or of the target's unit.
        num: N, symbols to draft; rounded down to whole units of both.
    """

    name = "model"

    def __init__(self, small: Target, num: int) -> None:
        self.small, self.max_draft = small, num
        self._read: list[NDArray[Any]] = []
        self._prompt_lengths = np.zeros(0, dtype=np.int64)
        self._limits = np.zeros(0, dtype=np.int64)

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Read the prompts with the small model.

        Raises:
            DecodingError: the units do not fit, no whole unit is drafted, or a prompt does not fit the small model.
        """
        unit = self.small.unit
        if unit not in (1, target.unit):
            raise DecodingError(f"draft model: found a law of {unit} symbols at a time, expected 1 or {target.unit}")
        self.max_draft -= self.max_draft % target.unit
        if self.max_draft < 1:
            raise DecodingError(
                f"draft model: found less than one unit to draft, expected at least {target.unit} symbols"
            )
        self._read, self._prompt_lengths, self._limits = [], self._prompt_lengths[:0], self._limits[:0]
        self._admit(self.small, prompts, max_new)

    def join(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Read the prompts of rows that arrive.

        Raises:
            DecodingError: a prompt does not fit the small model.
        """
        if not isinstance(self.small, JoiningTarget):
            raise DecodingError(
                f"draft model: {type(self.small).__name__} has no join, which rows that arrive later need"
            )
        arriving = self.small.new()
        self._admit(arriving, prompts, max_new)
        self.small.join(arriving)

    def _admit(self, small: Target, prompts: Sequence[NDArray[Any]], max_new: int) -> None:
        self._start(small, prompts, max_new + self.max_draft)
        self._prompt_lengths = np.append(self._prompt_lengths, [len(prompt) for prompt in prompts])
        self._limits = np.append(self._limits, np.full(len(prompts), max_new))
        self._read += [np.asarray(prompt) for prompt in prompts]

    def _start(self, small: Target, told: Sequence[NDArray[Any]], num_new: int | Sequence[int]) -> Block:
        return small.start(self._told(told), num_new, max(self.max_draft, _CATCH_UP * small.unit))

    def propose(self, round_: Round) -> Draft:
        """Draft (B, N), one unit of the small model after another."""
        unit, choose = self.small.unit, round_.choice(self.max_draft)
        block, state_B, ahead, counts = self._catch_up(round_)
        drafted, log_q = round_.emitted[:, :0], []
        while True:
            begin = drafted.shape[1]
            for _ in range(unit):
                symbol, law = choose(_logits_at(block, state_B, drafted[:, begin:]), drafted)
                drafted = torch.cat((drafted, symbol), dim=1)
                log_q += [] if law is None else [law]
            if drafted.shape[1] == self.max_draft:
                break
            ahead = _put(ahead, counts, drafted[:, begin:])
            block = self.small.advance(ahead, counts + unit, drafted[:, :0])
            ahead, counts, state_B = ahead[:, :0], torch.zeros_like(counts), torch.zeros_like(state_B)
        if self.max_draft > unit:  # the small model has gone on: all but the last unit is in its books
            told = drafted[:, : self.max_draft - unit].cpu().numpy()
            self._read = [np.concatenate(parts) for parts in zip(round_.histories, told, strict=True)]
        return Draft(drafted, log_q=torch.stack(log_q, dim=1) if log_q else None, source=self.name)

    def _catch_up(self, round_: Round) -> tuple[Block, Tensor, Symbols, Counts]:
        """Bring the small model to the committed symbols.

        Returns:
            A block; the state of each row that follows its last committed symbol; symbols that the block was run on and
            that are still to be committed, with their number.
        """
        unit, histories, device = self.small.unit, round_.histories, round_.emitted.device
        live = round_.counts.cpu().numpy() > 0
        known = np.array([_common(*pair) for pair in zip(histories, self._read, strict=True)])
        known = self._prompt_lengths + (known - self._prompt_lengths) // unit * unit
        lengths = np.array([len(history) for history in histories])
        known = np.where(live, np.minimum(known, lengths - unit), known)
        missing = np.where(live, (lengths - known) // unit, 1)
        none = torch.zeros(len(histories), dtype=torch.int64, device=device)
        if missing.max() > _CATCH_UP:
            left = self._limits - (lengths - self._prompt_lengths) + self.max_draft
            block = self._start(self.small, histories, left.tolist())
            self._read = [history.copy() for history in histories]
            return block, none, round_.emitted[:, :0], none
        feed = np.zeros((len(histories), int(missing.max()) * unit), dtype=np.int64)
        for row in np.flatnonzero(live).tolist():
            feed[row, : missing[row] * unit] = histories[row][known[row] :]
        before, self._read = self._read, [h[: k + unit].copy() for h, k in zip(histories, known, strict=True)]
        self.small.rewind(torch.from_numpy(np.array([len(read) for read in before]) - known).to(device))
        feed[feed >= self.small.vocab_size] = _UNKNOWN
        ahead, last = torch.from_numpy(feed).to(device), torch.from_numpy(missing - 1).to(device)
        block = self.small.advance(ahead[:, :unit], torch.full_like(none, unit), ahead[:, unit:])
        return block, last, ahead[:, unit:], last * unit

    def _told(self, histories: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """What the small model reads in the place of these."""
        return [np.where(np.asarray(h) < self.small.vocab_size, h, _UNKNOWN) for h in histories]

    def select(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows of the batch, in this order."""
        self.small.select(torch.from_numpy(rows).to(self.small.device))
        self._read = [self._read[row] for row in rows.tolist()]
        self._prompt_lengths, self._limits = self._prompt_lengths[rows], self._limits[rows]

    def observe(self, accepted: NDArray[np.int64], seconds: float) -> None:
        """Nothing is learnt."""


def _common(history: NDArray[Any], read: NDArray[Any]) -> int:
    """Length of the longest common prefix."""
    width = min(len(history), len(read))
    differ = np.flatnonzero(history[:width] != read[:width])
    return int(differ[0]) if len(differ) else width


def _logits_at(block: Block, state_B: Tensor, prefix: Symbols) -> Float[Tensor, "B V"]:
    """Logits after ``prefix`` of one state of each row."""
    rows = torch.arange(len(state_B), device=state_B.device)
    return block.logits(prefix[:, None].expand(-1, block.num_states, -1))[rows, state_B]


def _put(symbols: Symbols, begins_B: Tensor, unit: Symbols) -> Symbols:
    """``symbols`` with a unit more, which stands at ``begins_B`` of each row."""
    columns = begins_B[:, None] + torch.arange(unit.shape[1], device=unit.device)
    return torch.cat((symbols, unit), dim=1).scatter(1, columns, unit)

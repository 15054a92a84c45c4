"""Drafts from the text itself: what followed the last occurrence of the symbols just written."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.decoding.drafters.suffixes import SuffixAutomaton
from bytelm.decoding.protocols import Draft, Round, Target
from bytelm.errors import DecodingError


class LookupDrafter:
    """Prompt look-up: propose what followed an earlier occurrence of the longest suffix that has one.

    Saxena 2023 (prompt look-up decoding), with a suffix automaton over prompt and output for the longest match of any
    length, instead of n-grams of fixed ones. Bytes repeat by chance more than tokens do, so short matches are not used.

    Args:
        num: N, symbols to draft at most; rounded down to whole units of the target.
        min_match: symbols of the suffix that must have occurred before.
    Raises:
        DecodingError: an argument below 1.
    """

    name = "lookup"

    def __init__(self, num: int = 16, min_match: int = 6) -> None:
        for what, value in (("num", num), ("min_match", min_match)):
            if value < 1:
                raise DecodingError(f"draft 'lookup': found {what} = {value}, expected at least 1")
        self.max_draft, self.min_match = num, min_match
        self._automata: list[SuffixAutomaton] = []

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Read the prompts."""
        self.max_draft -= self.max_draft % target.unit
        self._automata = []
        self.join(prompts, max_new, target)

    def join(self, prompts: Sequence[NDArray[Any]], max_new: int, target: Target) -> None:
        """Read the prompts of rows that arrive."""
        shared: dict[bytes, SuffixAutomaton] = {}
        for prompt in prompts:
            key = np.asarray(prompt).tobytes()
            automaton = shared[key].copy() if key in shared else SuffixAutomaton(prompt.tolist())
            shared.setdefault(key, automaton)
            self._automata.append(automaton)

    def propose(self, round_: Round) -> Draft:
        """Draft (B, N) with N the longest of the rows' proposals in whole units, 0 where no row has one."""
        found = []
        for automaton, history in zip(self._automata, round_.histories, strict=True):
            automaton.extend(history[len(automaton) :].tolist())
            found.append(automaton.continuation(self.min_match, min(self.max_draft, round_.room)))
        width = -(-max(map(len, found)) // round_.unit) * round_.unit
        filled = np.zeros((len(found), min(width, self.max_draft)), dtype=np.int64)
        lengths = np.array([len(continuation) for continuation in found])
        for row, continuation in enumerate(found):
            filled[row, : len(continuation)] = continuation
        device = round_.emitted.device
        return Draft(
            torch.from_numpy(filled).to(device), proposed=torch.from_numpy(lengths).to(device), source=self.name
        )

    def select(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows, in this order."""
        self._automata = [self._automata[row] for row in rows.tolist()]

    def observe(self, accepted: NDArray[np.int64], seconds: float) -> None:
        """Nothing is learnt."""

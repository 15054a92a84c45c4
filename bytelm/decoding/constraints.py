"""What may follow what: an automaton over symbols as a processor. Knows arrays, not encodings."""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.decoding.processors import State
from bytelm.errors import DecodingError


@runtime_checkable
class Acceptor(Protocol):
    """A deterministic automaton over V symbols; it starts in state 0."""

    transitions: NDArray[np.int32]
    """int32[S, V], the state after a symbol; below 0 where it must not follow. At least one follows in each state."""

    accepting: NDArray[np.bool_]
    """bool[S], where the output may end."""


class AutomatonMask:
    """Forbids every symbol that the automaton does not allow. The prompt counts as nothing: a row starts in state 0.

    A draft that the automaton does not allow leads to a state without mask, from which nothing is ever emitted.

    With a limit, a symbol must also leave enough symbols to reach an accepting state. So the output ends in one, cut or
    not, unless none can be reached in exactly what is left, after EOS for instance; there the limit does not count.

    Args:
        automaton: transitions and accepting states.
        limit: the length of the output in symbols, where the row is cut.
    Raises:
        DecodingError: the shortest output that the automaton accepts is longer than the limit.
    """

    def __init__(self, automaton: Acceptor, *, limit: int | None = None) -> None:
        legal = automaton.transitions >= 0
        assert legal.any(axis=1).all()
        needed = _symbols_to_acceptance(automaton)
        if limit is not None and needed[0] > limit:
            raise DecodingError(f"max_new: found {limit}, expected at least {needed[0]}, the shortest that is allowed")
        self._limit, self._sink, self._vocab = limit, *legal.shape
        table = np.where(legal, automaton.transitions, self._sink).astype(np.int32)
        self._table_SV = torch.from_numpy(np.vstack([table, np.full_like(table[:1], self._sink)]))
        self._needed_S = torch.from_numpy(np.append(needed, 0))

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, vocab: int, device: torch.device) -> State:
        """State 0 of the automaton, int64 (B,), and the symbols left before the limit, int64 (B,)."""
        if vocab != self._vocab:
            raise DecodingError(f"constraint: found an automaton over {self._vocab} symbols, expected {vocab}")
        self._table_SV, self._needed_S = self._table_SV.to(device), self._needed_S.to(device)
        states = torch.zeros(len(prompts), dtype=torch.int64, device=device)
        return states, torch.full_like(states, 0 if self._limit is None else self._limit)

    def advance(self, state: State, symbols: Int[Tensor, "*B"]) -> State:
        """After one more symbol."""
        states, left = state
        return self._table_SV[states, symbols].long(), left - 1

    def apply(self, state: State, logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """Forbid what is not legal or leaves too little room."""
        states, left = state
        next_BV = self._table_SV[states].long()
        legal_BV = (next_BV != self._sink) | (states == self._sink)[..., None]
        if self._limit is not None:
            fits_BV = legal_BV & (self._needed_S[next_BV] < left[..., None])
            legal_BV = torch.where(fits_BV.any(-1, keepdim=True), fits_BV, legal_BV)
        return logits.masked_fill(~legal_BV, -math.inf)


def _symbols_to_acceptance(automaton: Acceptor) -> NDArray[np.int64]:
    """The fewest symbols from each state to an accepting one, int64[S], by a search backwards."""
    sources, symbols = np.nonzero(automaton.transitions >= 0)
    targets = automaton.transitions[sources, symbols]
    order = np.argsort(targets, kind="stable")
    sources, first = sources[order], np.searchsorted(targets[order], np.arange(len(automaton.transitions) + 1))
    needed = np.where(automaton.accepting, 0, -1).astype(np.int64)
    reached, steps = np.flatnonzero(automaton.accepting), 0
    while len(reached):
        steps += 1
        before = np.unique(np.concatenate([sources[first[state] : first[state + 1]] for state in reached]))
        reached = before[needed[before] < 0]
        needed[reached] = steps
    assert (needed >= 0).all()
    return needed

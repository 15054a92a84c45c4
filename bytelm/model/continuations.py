"""Scoring continuations as the decoder would emit them: several of one context, which is read once for all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.errors import DecodingError
from bytelm.model.targets import NextTarget, PatchTarget

_MAX_LOGITS = 1 << 26
"""The most logits that are held at once, of more than one row."""

Target = PatchTarget | NextTarget


class ScoredIds(NamedTuple):
    """What the law says of a continuation, symbol by symbol, each given all before it.

    Attributes:
        nats: float64[n], ``-log p``.
        greedy: bool[n], whether it is the likeliest symbol there, the one that greedy decoding emits.
    """

    nats: NDArray[np.float64]
    greedy: NDArray[np.bool_]


@dataclass(frozen=True)
class _Group:
    """A context, and the continuations of it, with their indices in the call."""

    context: NDArray[Any]
    indices: tuple[int, ...]
    continuations: tuple[NDArray[Any], ...]

    @property
    def longest(self) -> int:
        return max(len(continuation) for continuation in self.continuations)


def context_room(target: Target, num_symbols: int) -> int:
    """The most symbols of context, without BOS, that a continuation of ``num_symbols`` leaves room for.

    The symbols after the last one whose state is asked for are not read, so P = 1 has room for one symbol more than the
    model's context.
    """
    return target.model.config.context - len(target.bos_patch) - _num_read(target, num_symbols)


def score_continuations(
    target: Target, contexts: Sequence[NDArray[Any]], continuations: Sequence[NDArray[Any]], max_rows: int = 8
) -> Iterator[tuple[int, ScoredIds]]:
    """What the target's law says of each continuation after its context, as they become known, the longest first.

    A context that several continuations have is read once. Under ``product`` and ``chain`` the patches begin at the end
    of the context, as in decoding.

    Args:
        target: the model under one law; its state is overwritten.
        contexts: symbols of each, without BOS; they may be empty where the target puts BOS before them.
        continuations: as many; an empty one has no symbols to score.
        max_rows: continuations in a forward, at most.
    Yields:
        The index of a continuation, and its scores.
    Raises:
        DecodingError: a context and its continuation do not fit the model's context; names the index.
    """
    groups = []
    for group in _groups(contexts, continuations, max_rows):
        room = context_room(target, group.longest)
        if len(group.context) > room:
            raise DecodingError(
                f"continuation {group.indices[0]}: found {len(group.context)} symbols of context and {group.longest} "
                f"after them, expected at most {max(room, 0)} before so many"
            )
        groups.append(group)
    for batch in _batches(target, groups, max_rows):
        with torch.inference_mode():
            found = _score(target, batch)
        yield from zip((i for group in batch for i in group.indices), found, strict=True)


def _num_read(target: Target, num_symbols: int) -> int:
    """Symbols of a continuation that are read to know the law of all of them: all but the last unit."""
    return max(0, -(-num_symbols // target.unit) - 1) * target.unit


def _groups(contexts: Sequence[NDArray[Any]], continuations: Sequence[NDArray[Any]], max_rows: int) -> Iterator[_Group]:
    """The continuations of each context together, some at a time."""
    indices: dict[bytes, list[int]] = {}
    for i, context in enumerate(contexts):
        indices.setdefault(np.asarray(context, np.int64).tobytes(), []).append(i)
    for same in indices.values():
        same.sort(key=lambda i: -len(continuations[i]))
        for begin in range(0, len(same), max_rows):
            some = tuple(same[begin : begin + max_rows])
            yield _Group(contexts[some[0]], some, tuple(continuations[i] for i in some))


def _batches(target: Target, groups: list[_Group], max_rows: int) -> Iterator[list[_Group]]:
    """Groups of like length together, as far as the longest context and continuation of a batch fit together."""
    batch: list[_Group] = []
    for group in sorted(groups, key=lambda g: -(len(g.context) + g.longest)):
        both = [*batch, group]
        rows, longest = sum(len(g.indices) for g in both), max(g.longest for g in both)
        fits = max(len(g.context) for g in both) <= context_room(target, longest)
        if batch and (rows > max_rows or not fits or rows * longest * target.vocab_size > _MAX_LOGITS):
            yield batch
            both = [group]
        batch = both
    if batch:
        yield batch


def _score(target: Target, batch: Sequence[_Group]) -> list[ScoredIds]:
    """Two forwards: the contexts, whose states give the first unit; then all but the last unit of each continuation."""
    rows = [continuation for group in batch for continuation in group.continuations]
    unit, ahead = target.unit, _num_read(target, max(len(row) for row in rows))
    symbols = np.zeros((len(rows), ahead + unit), np.int64)
    for r, row in enumerate(rows):
        symbols[r, : len(row)] = row
    given = torch.from_numpy(symbols).to(target.device)
    block = target.start([group.context for group in batch], ahead, max(0, ahead - unit))
    if len(rows) > len(batch):
        of_row = np.repeat(np.arange(len(batch)), [len(group.indices) for group in batch])
        copies = torch.from_numpy(of_row).to(target.device)
        target.select(copies)
        block = block.select(copies)
    parts = [_judge(block, given[:, :unit])]
    if ahead:
        counts = torch.full((len(rows),), unit, device=target.device)
        block = target.advance(given[:, :unit], counts, given[:, unit:ahead])
        parts.append(_judge(block, given[:, unit:]))
    nats = torch.cat([part[0] for part in parts], dim=1).double().cpu().numpy()
    greedy = torch.cat([part[1] for part in parts], dim=1).cpu().numpy()
    return [ScoredIds(nats[r, : len(row)], greedy[r, : len(row)]) for r, row in enumerate(rows)]


def _judge(block: Any, given_BN: Int[Tensor, "B N"]) -> tuple[Float[Tensor, "B N"], Tensor]:
    """``-log p`` of the symbols after each state of a block, and whether each is the likeliest."""
    symbols_BRN = given_BN.unflatten(1, (block.num_states, -1))
    nats, greedy = [], []
    for place in range(symbols_BRN.shape[-1]):
        logits = block.logits(symbols_BRN[..., :place]).float()
        symbol = symbols_BRN[..., place]
        nats.append(logits.logsumexp(-1) - logits.gather(-1, symbol[..., None]).squeeze(-1))
        greedy.append(logits.argmax(-1) == symbol)
    return torch.stack(nats, dim=-1).flatten(1), torch.stack(greedy, dim=-1).flatten(1)

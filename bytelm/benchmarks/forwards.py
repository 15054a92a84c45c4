"""What a forward costs, measured on the target itself: one position, several, and with the heads after it."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bytelm.benchmarks.bandwidth import slot_bytes, weight_bytes
from bytelm.benchmarks.timing import median_ratio, seconds_per_call, take_turns
from bytelm.compilation import compiled as compile_once
from bytelm.hub import LanguageModel
from bytelm.model.blocks import StatesBlock
from bytelm.model.ends import Law
from bytelm.model.targets import NextTarget, PatchTarget

POSITIONS = (1, 2, 4, 8, 16)
"""Numbers of positions that one forward reads: the last committed one and the drafted ones."""

CACHED_SLOTS = 256
"""Patch positions in each stream of the cache, where the context holds as many."""

_WARM_UP = 3


@dataclasses.dataclass(frozen=True)
class ForwardCost:
    """One kind of forward.

    Attributes:
        law: whose target; a position is a patch, under ``next`` a byte.
        positions: read at once.
        heads: how many heads are then asked, one after the other; 0: the body alone.
        batch: rows.
        slots: patch positions of each stream in the cache that attention looks at.
        compiled: whether forward and heads ran through ``torch.compile``, and on a CUDA GPU through CUDA graphs.
        seconds: median over the repeats.
        ratio: over the forward of the body at one position under the same law and mode, the median of pairs measured
            in turn.
        bytes_read_per_second: bytes of the weight matrices and of the cached keys and values, each read once.
    """

    law: str
    positions: int
    heads: int
    batch: int
    slots: int
    compiled: bool
    seconds: float
    ratio: float
    bytes_read_per_second: float


class _Kind(NamedTuple):
    law: Law
    positions: int
    heads: int


def measure_forwards(
    lm: LanguageModel,
    *,
    laws: Sequence[Law] | None = None,
    batch: int = 1,
    slots: int = CACHED_SLOTS,
    repeats: int = 15,
    compiled: bool = False,
) -> list[ForwardCost]:
    """Cost of forwards at a cache of a fixed length: each of :data:`POSITIONS`, and one position with its heads.

    Models of tokens have their one head with every number of positions: what verifying a draft costs.

    A forward is repeated at the same place: it commits nothing. All kinds take turns after a warm-up.

    Args:
        lm: the model.
        laws: some of its laws; all for None.
        batch: rows.
        slots: length of the cache in patch positions; as many as the context has, where it has fewer.
        repeats: turns of every kind.
        compiled: through ``torch.compile``.
    """
    lm.model.eval()
    slots = min(slots, lm.config.context // lm.config.patch)
    cases: dict[_Kind, Callable[[], object]] = {}
    found_slots: dict[Law, int] = {}
    with torch.inference_mode():
        for law in laws or lm.laws:
            target = lm.make_target(law, compiled=compiled)
            positions = [n for n in POSITIONS if n == 1 or 2 * n <= slots]
            _start(target, batch, slots, positions[-1])
            with_heads = positions if target.unit == target.patch == 1 else positions[:1]
            kinds = [*(_Kind(law, n, 0) for n in positions), *(_Kind(law, n, target.unit) for n in with_heads)]
            cases |= {kind: _forward(target, batch, kind) for kind in kinds}
            found_slots[law] = target.cache.capacity
        # The widest first: after them every forward sees the whole cache.
        for kind in sorted(cases, key=lambda kind: -kind.positions):
            for _ in range(_WARM_UP):
                cases[kind]()
        timed = {kind: lambda case=case: _settled(case, lm.model.device) for kind, case in cases.items()}
        runs = take_turns(timed, repeats)
    return [
        ForwardCost(
            *kind,
            batch=batch,
            slots=found_slots[kind.law],
            compiled=compiled,
            seconds=statistics.median(runs[kind]),
            ratio=median_ratio(runs[kind], runs[_Kind(kind.law, 1, 0)]),
            bytes_read_per_second=_bytes_read(lm, kind, batch, found_slots[kind.law]) / statistics.median(runs[kind]),
        )
        for kind in cases
    ]


def _settled(case: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call of which as many came just before: after a wide forward a processor is slower for a while."""
    seconds_per_call(case, device)
    return seconds_per_call(case, device)


def _start(target: PatchTarget | NextTarget, batch: int, slots: int, positions: int) -> None:
    """Read random prompts of the length that leaves a cache of ``slots``, room for so many positions included."""
    patch = target.patch
    length = (slots - positions) * patch if target.unit > 1 else (slots - 1) * patch - positions
    prompts = np.random.default_rng(0).integers(0, target.vocab_size, (batch, max(0, length - patch)), dtype=np.int64)
    target.start(list(prompts), 1, (positions - 1) * target.unit)


def _forward(target: PatchTarget | NextTarget, batch: int, kind: _Kind) -> Callable[[], object]:
    """A forward that commits nothing, so that it can be repeated, and the likeliest symbols of its heads after it."""
    symbols = torch.arange(kind.positions * target.unit, device=target.device).expand(batch, -1) % target.vocab_size
    draft, nothing = symbols[:, target.unit :], torch.zeros(batch, dtype=torch.int64, device=target.device)

    ask = compile_once(_ask) if target.fixed_shapes else _ask

    def call() -> object:
        block = target.advance(symbols, nothing, draft)
        if target.graphs is not None:
            return block, target.graphs.run(ask, block, kind.heads)
        return block, ask(block, kind.heads)

    return call


def _ask(block: StatesBlock, heads: int) -> Tensor:
    """The likeliest symbols of so many heads of every state, one after the other."""
    drawn = block.draw(None, 1.0) if heads == block.unit else None
    if drawn is not None:
        return drawn[0]
    prefix = block.windows_BR_[:, :, :0]
    for _ in range(heads):
        prefix = torch.cat((prefix, block.logits(prefix).argmax(-1, keepdim=True)), dim=-1)
    return prefix


def _bytes_read(lm: LanguageModel, kind: _Kind, batch: int, slots: int) -> int:
    """Bytes of weights and of cached keys and values; under ``next`` up to P positions have streams of their own."""
    itemsize = next(lm.model.parameters()).element_size()
    streams = min(kind.positions, lm.config.patch) if kind.law == "next" else 1
    weights = weight_bytes(lm.model, kind.law, with_heads=kind.heads > 0)
    return weights + batch * streams * slots * slot_bytes(lm.config, itemsize)

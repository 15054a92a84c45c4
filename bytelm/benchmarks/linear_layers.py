"""What linear layers alone cost for a few rows, and what a step of plain decoding costs beside them."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytelm.benchmarks.bandwidth import matrix_bytes
from bytelm.benchmarks.timing import median_ratio, seconds_per_call, take_turns
from bytelm.hub import LanguageModel

ROWS = (1, 2, 4, 8)
"""Rows that the layers are given: positions that a draft lets one forward read."""


@dataclasses.dataclass(frozen=True)
class LinearCost:
    """All linear layers of a model, each once, one after the other, and nothing else.

    Attributes:
        through: ``bytelm``, as the model calls them, or ``torch``, :func:`torch.nn.functional.linear` on the same
            weights.
        rows: given to each.
        seconds: median over the repeats.
        ratio: over one row through ``bytelm``, the median of pairs measured in turn.
        bytes_read_per_second: bytes of the matrices, each read once.
    """

    through: str
    rows: int
    seconds: float
    ratio: float
    bytes_read_per_second: float


@dataclasses.dataclass(frozen=True)
class StepCost:
    """One forward of plain greedy decoding at batch 1, with everything around it; the prefill does not count.

    Attributes:
        seconds: median over the repeats.
        symbols_per_second: likewise.
        bytes_read_per_second: bytes of the matrices, each read once.
        linear_share: seconds of the linear layers alone, for one row through ``bytelm``, over ``seconds``: the median
            of pairs measured in turn.
        ratio: symbols a second over those of the first model: the median of pairs measured in turn.
    """

    seconds: float
    symbols_per_second: float
    bytes_read_per_second: float
    linear_share: float
    ratio: float


class _Kind(NamedTuple):
    through: str
    rows: int


class _Case(NamedTuple):
    model: int
    kind: _Kind


_STEP = _Kind("step", 1)
_ALONE = _Kind("bytelm", 1)


def measure_linear(
    models: Sequence[LanguageModel],
    prompt: str,
    *,
    rows: Sequence[int] = ROWS,
    steps: int = 16,
    repeats: int = 3,
    compile: bool = False,
) -> list[tuple[StepCost, list[LinearCost]]]:
    """Cost of a plain step under each model's first law, and of its linear layers alone.

    All cases of all models take turns after a warm-up. The layers of the merger, the blocks and the heads count; their
    inputs are random.

    Args:
        models: of the same tokenizer and law, such as one model in several formats of its weights.
        prompt: continued greedily by the steps.
        rows: given to the layers; must begin with 1.
        steps: forwards of one repeat.
        repeats: turns of every case.
        compile: take the steps through ``torch.compile``.
    """
    assert rows[0] == 1
    cases: dict[_Case, Callable[[], float]] = {}
    for number, lm in enumerate(models):
        cases |= {_Case(number, kind): case for kind, case in _cases(lm, prompt, rows, steps, compile).items()}
    for case in cases.values():
        case()
    runs = take_turns(cases, repeats)
    first = runs[_Case(0, _STEP)]
    return [
        _costs(lm, {kind: times for (of, kind), times in runs.items() if of == number}, first)
        for number, lm in enumerate(models)
    ]


def _cases(
    lm: LanguageModel, prompt: str, rows: Sequence[int], steps: int, compile: bool
) -> dict[_Kind, Callable[[], float]]:
    layers = _layers(lm)
    cases: dict[_Kind, Callable[[], float]] = {_STEP: _step(lm, prompt, steps, compile)}
    for number in rows:
        inputs = _inputs(layers, number)
        for through, call in (("bytelm", _as_called), ("torch", _through_torch)):
            cases[_Kind(through, number)] = _alone(layers, inputs, call, lm.model.device)
    return cases


def _costs(
    lm: LanguageModel, runs: dict[_Kind, list[float]], first: Sequence[float]
) -> tuple[StepCost, list[LinearCost]]:
    num_bytes = sum(matrix_bytes(layer.weight) for layer in _layers(lm))
    seconds = statistics.median(runs[_STEP])
    per_forward = 1 if lm.law == "next" else lm.config.patch
    step = StepCost(
        seconds,
        per_forward / seconds,
        num_bytes / seconds,
        linear_share=median_ratio(runs[_ALONE], runs[_STEP]),
        ratio=median_ratio(first, runs[_STEP]),
    )
    return step, [
        LinearCost(
            *kind,
            seconds=statistics.median(times),
            ratio=median_ratio(times, runs[_ALONE]),
            bytes_read_per_second=num_bytes / statistics.median(times),
        )
        for kind, times in sorted(runs.items())
        if kind != _STEP
    ]


def _layers(lm: LanguageModel) -> list[nn.Linear]:
    parts = nn.ModuleList((lm.model.merger, lm.model.blocks, lm.model.heads))
    return [module for module in parts.modules() if isinstance(module, nn.Linear)]


def _step(lm: LanguageModel, prompt: str, steps: int, compile: bool) -> Callable[[], float]:
    """A call that decodes and gives the seconds of one forward after the prefill."""
    num_new = (steps + 1) * (1 if lm.law == "next" else lm.config.patch)

    def run() -> float:
        stats = lm.generate([prompt], max_new_tokens=num_new, draft="none", eos_token_id=(), compile=compile).stats
        return (stats.seconds - stats.parts.prefill) / (stats.forwards - 1)

    return run


def _inputs(layers: Sequence[nn.Linear], rows: int) -> dict[int, Tensor]:
    """Random rows for every input width."""
    generator = torch.Generator().manual_seed(0)
    widths = sorted({layer.in_features for layer in layers})
    weight = layers[0].weight
    return {width: torch.randn(rows, width, generator=generator).to(weight.device, weight.dtype) for width in widths}


def _alone(
    layers: Sequence[nn.Linear],
    inputs: dict[int, Tensor],
    call: Callable[[nn.Linear, Tensor], object],
    device: torch.device,
) -> Callable[[], float]:
    def products() -> None:
        for layer in layers:
            call(layer, inputs[layer.in_features])

    def run() -> float:
        with torch.inference_mode():
            return seconds_per_call(products, device)

    return run


def _as_called(layer: nn.Linear, x: Tensor) -> object:
    return layer(x)


def _through_torch(layer: nn.Linear, x: Tensor) -> object:
    return F.linear(x, layer.weight, layer.bias)

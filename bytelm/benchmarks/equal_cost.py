"""Two ways to compare models fairly: at equal operations per character, and at equal time of training."""

import time
from collections.abc import Callable

import torch

from bytelm.benchmarks.operations import operations_per_symbol
from bytelm.benchmarks.timing import synchronize
from bytelm.benchmarks.training_plan import training_operations
from bytelm.model.build import build_model
from bytelm.model.config import ModelConfig
from bytelm.model.scaling import at_width

_WARM_UP = 2


def operations_per_character(config: ModelConfig, symbols_per_char: float, chars_before: float) -> float:
    """Operations of plain cached decoding for one character under the model's default law.

    See :func:`~bytelm.benchmarks.operations.operations_per_symbol` for what is counted.

    Args:
        config: of the model.
        symbols_per_char: of its encoding or tokenizer, on the text.
        chars_before: characters whose keys and values are cached.
    """
    return operations_per_symbol(config, config.laws[0], chars_before * symbols_per_char) * symbols_per_char


def with_operations(
    config: ModelConfig, symbols_per_char: float, chars_before: float, operations: float, step: int
) -> ModelConfig:
    """The model at that width, a multiple of ``step``, whose operations per character come closest.

    Args:
        config: whose proportions are kept, see :func:`~bytelm.model.scaling.at_width`.
        symbols_per_char, chars_before: as for :func:`operations_per_character`.
        operations: per character, wanted.
        step: widths are multiples of it.
    """

    def found(steps: int) -> float:
        return operations_per_character(at_width(config, steps * step), symbols_per_char, chars_before)

    steps = _first(lambda n: found(n) >= operations)
    if steps > 1 and operations - found(steps - 1) <= found(steps) - operations:
        steps -= 1
    return at_width(config, steps * step)


def training_compute(config: ModelConfig, window: int, symbols: int) -> float:
    """Operations of the matrix products, forward and backward, that a run over so many symbols asks for.

    Args:
        config: of the model.
        window: symbols read at once.
        symbols: read in the whole run.
    """
    return training_operations(config, window).learning * symbols


def seconds_per_step(
    config: ModelConfig, window: int, batch_size: int, steps: int = 3, device: str | torch.device = "cpu"
) -> float:
    """Seconds of one step of AdamW in float32 on random symbols; the mean of a few.

    On the CPU processor seconds over all threads: with one thread that is what a step takes on an idle machine, as near
    as a busy one can tell. On other devices wall time.

    Args:
        config: of the model.
        window: symbols that a row reads.
        batch_size: rows.
        steps: that are timed, after two that are not.
        device: where the step is made.
    """
    where = torch.device(device)
    clock = time.process_time if where.type == "cpu" else time.perf_counter
    model = build_model(config).train().to(where)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    generator = torch.Generator().manual_seed(0)
    began = 0.0
    for i in range(_WARM_UP + steps):
        if i == _WARM_UP:
            synchronize(where)
            began = clock()
        shape = (batch_size, window + config.patch)
        symbols_BL = torch.randint(0, config.vocab_size, shape, generator=generator).to(where)
        optimizer.zero_grad()
        model.patch_nats(symbols_BL).mean().backward()
        optimizer.step()
    synchronize(where)
    return (clock() - began) / steps


def _first(holds: Callable[[int], bool]) -> int:
    """The smallest number from 1 on for which a monotone condition holds."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high

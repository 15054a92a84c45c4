"""The measurements of ``bytelm bench train``: whole loops of Lightning, in turn."""

import gc
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch

from bytelm.benchmarks.activations import Precision, product_bytes
from bytelm.benchmarks.matrix_rate import measure_matrix_rate
from bytelm.benchmarks.storages import Storages
from bytelm.benchmarks.timing import median_ratio, take_turns
from bytelm.cli.bench_train_contenders import Contender
from bytelm.training.throughput import StepClock

_WARMUP = 2
"""Steps at the beginning of a turn that are not timed: the optimiser's state is made in the first."""


@dataclass(frozen=True)
class Turn:
    """What one turn of a contender took.

    Attributes:
        step_s: seconds of a step, the median of the turn.
        cpu_s: processor seconds of a step, all threads; the median.
        data_share: of the time, spent on waiting for batches.
    """

    step_s: float
    cpu_s: float
    data_share: float


@dataclass(frozen=True, kw_only=True)
class TrainingSpeed:
    """How fast a contender trains.

    Attributes:
        name, compiled, precision: of it.
        parameters: weights.
        step_s: seconds of a step, the median of all turns.
        cpu_s: processor seconds of a step, all threads: less moved by other work on the machine.
        positions_per_s: positions of the body.
        chars_per_s: characters; None for a rival, which reads no text.
        operations: of a step, forward and backward pass.
        mfu: share of the rate of matrix products in the precision's type.
        mfu_float32: share of that in float32.
        data_share: of the time, spent on waiting for batches.
        peak_bytes: the highest sum of storages in a step; None where it is not known: compiled, on the CPU.
        ratio: time for a position over that of the first contender, the median of turns.
        cpu_ratio: the same by processor seconds.
    """

    name: str
    compiled: bool
    precision: Precision
    parameters: int
    step_s: float
    cpu_s: float
    positions_per_s: float
    chars_per_s: float | None
    operations: float
    mfu: float
    mfu_float32: float
    data_share: float
    peak_bytes: int | None
    ratio: float
    cpu_ratio: float


@dataclass(frozen=True, kw_only=True)
class MatrixRates:
    """Operations per second of products of square matrices, medians of turns.

    Attributes:
        dtype: of the precision's products.
        flops: in it.
        float32: in float32.
    """

    dtype: str
    flops: float
    float32: float


class _Laps(StepClock):
    """The seconds of each step after the first ones, and of waiting in it."""

    def __init__(self) -> None:
        super().__init__()
        self.laps: list[tuple[float, float, float]] = []
        self._cpu_began = self._cpu_s = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is there."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._cpu_began = time.process_time()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the step, if it is done."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._cpu_s += time.process_time() - self._cpu_began
        if self.steps:
            self.laps.append((self.seconds, self._cpu_s, self.wait_s))
            self._cpu_s = 0.0
            self.reset()

    def turn(self) -> Turn:
        """Of all steps after the first ones."""
        seconds, cpu, waited = zip(*self.laps[_WARMUP:], strict=True)
        return Turn(statistics.median(seconds), statistics.median(cpu), sum(waited) / sum(seconds))


def measure(
    contenders: Sequence[Contender], precision: Precision, steps: int, repeats: int
) -> tuple[list[TrainingSpeed], MatrixRates]:
    """Let them take turns in one precision, after each has run once; then look at the memory of a step.

    Args:
        contenders: the first is the one that others are compared with.
        precision: ``trainer.precision``.
        steps: of a turn.
        repeats: turns of each.
    """
    device = _root_device(contenders[0])
    dtype = torch.float32 if product_bytes(precision) == 4 else _half(precision)
    for contender in contenders:
        _run(contender, precision, _WARMUP + 1, device)
    rates: dict[int, Any] = {
        -1: lambda: measure_matrix_rate(dtype, device),
        -2: lambda: measure_matrix_rate(torch.float32, device),
    }
    turns: dict[int, Any] = {
        i: lambda c=contender: _run(c, precision, _WARMUP + steps, device)[0] for i, contender in enumerate(contenders)
    }
    found: dict[int, list[Any]] = take_turns({**rates, **turns}, repeats)
    matrix = MatrixRates(
        dtype=str(dtype).removeprefix("torch."),
        flops=statistics.median(found[-1]),
        float32=statistics.median(found[-2]),
    )
    speeds = []
    for i, contender in enumerate(contenders):
        peak = _peak(contender, precision, device)
        speeds.append(_speed(contender, precision, found[i], found[0], contenders[0], matrix, peak))
    return speeds, matrix


def _speed(
    contender: Contender,
    precision: Precision,
    turns: Sequence[Turn],
    first: Sequence[Turn],
    base: Contender,
    matrix: MatrixRates,
    peak: int | None,
) -> TrainingSpeed:
    step_s = statistics.median(turn.step_s for turn in turns)
    share = base.positions / contender.positions
    return TrainingSpeed(
        name=contender.name,
        compiled=contender.compiled,
        precision=precision,
        parameters=contender.parameters,
        step_s=step_s,
        cpu_s=statistics.median(turn.cpu_s for turn in turns),
        positions_per_s=contender.positions / step_s,
        chars_per_s=None if contender.chars is None else contender.chars / step_s,
        operations=contender.operations,
        mfu=contender.operations / step_s / matrix.flops,
        mfu_float32=contender.operations / step_s / matrix.float32,
        data_share=statistics.median(turn.data_share for turn in turns),
        peak_bytes=peak,
        ratio=share * median_ratio([turn.step_s for turn in turns], [turn.step_s for turn in first]),
        cpu_ratio=share * median_ratio([turn.cpu_s for turn in turns], [turn.cpu_s for turn in first]),
    )


def _run(contender: Contender, precision: Precision, steps: int, device: torch.device) -> tuple[Turn, int]:
    """So many steps in a trainer of their own; and, on a GPU, the most bytes that were allocated."""
    laps = _Laps()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning gives advice about the number of workers
        trainer = L.Trainer(
            **contender.trainer,
            precision=precision,
            max_steps=steps,
            callbacks=[*contender.callbacks(), laps],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
        trainer.fit(contender.module, contender.data)
    contender.module.trainer = None  # with it go the moments of the optimiser
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    del trainer
    gc.collect()
    return laps.turn(), peak


def _peak(contender: Contender, precision: Precision, device: torch.device) -> int | None:
    if device.type == "cuda":
        return _run(contender, precision, _WARMUP + 1, device)[1]
    if contender.compiled:
        return None
    with Storages(contender.module.parameters()) as storages:
        _run(contender, precision, _WARMUP + 1, device)
    return storages.high


def training_device(contender: Contender) -> str:
    """Where a contender trains: the name of the GPU, or ``cpu``."""
    device = _root_device(contender)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _root_device(contender: Contender) -> torch.device:
    trainer = L.Trainer(**contender.trainer, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    return trainer.strategy.root_device


def _half(precision: Precision) -> torch.dtype:
    return torch.float16 if precision == "16-mixed" else torch.bfloat16

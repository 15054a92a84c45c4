"""How fast a run goes: the callback that measures its steps, and the one that logs them."""

import time
from typing import Any

import lightning as L

from bytelm.training.batches import parts_of


class StepClock(L.Callback):
    """Adds up what the steps of training take, from asking for a batch to the end of the optimiser's step.

    Validation, and what else is done between steps, is not in it; a checkpoint that is written before a step is. On a
    GPU the host must wait for the device somewhere in each step, as it does for the norm of the gradient.

    Attributes:
        windows: that were read.
        wait_s: seconds of waiting for batches.
        busy_s: seconds of the rest of the steps.
        steps: of the optimiser.
    """

    def __init__(self) -> None:
        self._began = self._waited = 0.0
        self._loader: object = None
        self._step = 0
        self.reset()

    def reset(self) -> None:
        """Begin to count."""
        self.windows = self.steps = 0
        self.wait_s = self.busy_s = 0.0

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return self.wait_s + self.busy_s

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        self._step = trainer.global_step
        self.reset()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is there."""
        loader = trainer.train_dataloader
        if loader is not self._loader:
            self._loader, self._waited = loader, 0.0
        waited = getattr(loader, "wait_s", 0.0)
        self.wait_s += waited - self._waited
        self._waited, self._began = waited, time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The forward, or the step, is done."""
        self.busy_s += time.perf_counter() - self._began
        self.windows += len(parts_of(batch)[0])
        self.steps += trainer.global_step - self._step
        self._step = trainer.global_step


class LogThroughput(StepClock):
    """Logs the mean speed since it was last logged, whenever Lightning logs: ``throughput/…`` in every logger.

    ``step_s``, seconds of an optimiser's step; ``symbols_per_s`` and ``chars_per_s``, symbols and characters that all
    processes read in a second; ``data_share``, the share of its time that this process waits for data. They are no
    metrics of the model: they do not come into checkpoints, and no two runs have the same.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, if a step is done and it is time."""
        before = self.steps
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.steps == before or not trainer._logger_connector.should_update_logs:
            return
        figures = self._figures(trainer)
        self.reset()
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.fit_loop.epoch_loop._batches_that_stepped)

    def _figures(self, trainer: L.Trainer) -> dict[str, float]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        symbols_per_s = self.windows * data.window * trainer.world_size / self.seconds
        figures = {
            "throughput/step_s": self.seconds / self.steps,
            "throughput/symbols_per_s": symbols_per_s,
            "throughput/data_share": self.wait_s / self.seconds,
        }
        if hasattr(data, "chars_per_symbol"):
            figures["throughput/chars_per_s"] = symbols_per_s * data.chars_per_symbol("train")
        return figures

"""The callback that leaves out optimiser steps whose loss or gradient is no finite number."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from bytelm.errors import ConfigError, TrainingError
from bytelm.training.callbacks import run_folder
from bytelm.training.gradients import gradient_values

log = logging.getLogger(__name__)


class SkipNonFinite(L.Callback):
    """Leaves weights and moments as they are where the loss or the norm of the gradient is NaN or infinite.

    The step counts, for the schedule too; ``train/skipped_steps`` in the metrics is the number left out so far, from
    the first on. The batches of such a step go to ``RUN/non_finite/step-N.pt``: a list of tensors, one for each part of
    the gradient, with their losses. Looking at the norm makes the host wait for the device once a step.

    Args:
        stop_after: as many such steps in a row end the run.
    """

    def __init__(self, stop_after: int = 10) -> None:
        if stop_after < 1:
            raise ConfigError(f"SkipNonFinite.stop_after: found {stop_after}, expected at least 1")
        self.stop_after = stop_after
        self.skipped = self.in_a_row = 0
        self.folder: Path | None = None
        self._batches: list[Tensor | tuple[Tensor, ...]] = []
        self._losses: list[Tensor] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder."""
        self.folder = run_folder(trainer) / "non_finite"

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Hold the batch until its gradient was seen."""
        self._batches.append(batch if isinstance(batch, Tensor) else tuple(batch))

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Hold the loss."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Take the gradients away where they are of no use: a parameter without one is not changed.

        Raises:
            TrainingError: it was one too many in a row.
        """
        batches, losses = self._batches, self._losses
        self._batches, self._losses = [], []
        finite = torch.isfinite(torch.stack([*losses, _gradient_norm(optimizer)])).all()
        if trainer.strategy.reduce_boolean_decision(bool(finite)):
            self.in_a_row = 0
        else:
            optimizer.zero_grad(set_to_none=True)
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            self._report(trainer, batches, losses)
        if self.skipped:
            pl_module.log("train/skipped_steps", float(self.skipped))

    def _report(self, trainer: L.Trainer, batches: list[Any], losses: list[Tensor]) -> None:
        assert self.folder is not None
        step, process = trainer.global_step, f"-{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder / f"step-{step:08d}{process}.pt"
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {"step": step, "epoch": trainer.current_epoch, "losses": losses, "batches": batches}
        torch.save({name: _on_cpu(value) for name, value in kept.items()}, path)
        if self.in_a_row >= self.stop_after:
            raise TrainingError(
                f"step {step}: found a loss or gradient that is not finite {self.in_a_row} times in a row, expected"
                f" fewer than {self.stop_after}; the batches are in {self.folder}"
            )
        log.warning("step %d: the loss or its gradient is not finite, left out; its batch is %s", step, path)

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The counts of the run that goes on."""
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]


def _gradient_norm(optimizer: Optimizer) -> Tensor:
    gradients = gradient_values(p for group in optimizer.param_groups for p in group["params"])
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of a sharded model


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    return type(value)(map(_on_cpu, value)) if isinstance(value, list | tuple) else value

"""The callback that keeps checkpoints from which a run goes on as if it had never stopped."""

import logging
import random
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from bytelm.errors import CheckpointError, ConfigError
from bytelm.training.callbacks import run_folder
from bytelm.training.checkpoint_io import (
    SafeCheckpointIO,
    checkpoint_path,
    checkpoint_step,
    checkpoints,
    partial_path,
    remove,
)
from bytelm.training.parallel import agree_on, exchanged, in_any_process, in_first_process

log = logging.getLogger(__name__)


class SaveRun(Checkpoint):
    """Writes ``RUN/checkpoints/step-N.ckpt`` at moments from which training can go on exactly.

    Such a moment is between two optimiser steps, when validation and logging of the last one are done. Lightning's
    ModelCheckpoint saves inside a step, and what follows in that step is not repeated when the run goes on. Checkpoints
    are written after each validation, after a number of steps or minutes, when training ends, and on SIGTERM, which
    ends the process with Lightning's ``SIGTERMException`` once the gradients at hand are used and the validation that
    runs is over. The random state of every process is kept. An error of one process while it writes ends all.

    Args:
        every_n_steps: optimiser steps between checkpoints; not counted by default.
        every_minutes: minutes between checkpoints.
        keep: as many of the latest remain, at least two.
    """

    def __init__(self, every_n_steps: int | None = None, every_minutes: float = 15.0, keep: int = 2) -> None:
        for name, value, least in (("every_n_steps", every_n_steps, 1), ("keep", keep, 2)):
            if value is not None and value < least:
                raise ConfigError(f"SaveRun.{name}: found {value}, expected at least {least}")
        if not every_minutes > 0:
            raise ConfigError(f"SaveRun.every_minutes: found {every_minutes}, expected a number > 0")
        self.every_n_steps, self.every_minutes, self.keep = every_n_steps, every_minutes, keep
        self.folder: Path | None = None
        self._terminated = self._validated = self._saving = False
        self._trainer: L.Trainer
        self._loaded: Mapping[str, Any] | None = None
        self._saved_step, self._saved_at = -1, 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder, and write safely in it."""
        self._trainer = trainer
        self.folder = run_folder(trainer) / "checkpoints"
        try:
            plain = type(trainer.strategy.checkpoint_io) is TorchCheckpointIO
        except NotImplementedError:  # a strategy that writes shards itself
            plain = False
        if plain:
            trainer.strategy.checkpoint_io = SafeCheckpointIO()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the metrics of a run that goes on."""
        self._restore_metrics(trainer)

    def _prepare_folder(self, is_new: bool) -> None:
        assert self.folder is not None
        if is_new and checkpoints(self.folder):
            number = next(n for n in range(1, 1 << 30) if not self.folder.with_name(f"checkpoints.{n}").exists())
            self.folder.rename(self.folder.with_name(f"checkpoints.{number}"))
            log.warning("%s: checkpoints of an earlier run, now in checkpoints.%d", self.folder, number)
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(partial_path(Path("step-*.ckpt")).name):  # by a process that was killed
            remove(left)

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take SIGTERM over from Lightning."""
        self._take_sigterm()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take SIGTERM over from Lightning; make the folder, and put away checkpoints of another run that are in it."""
        self._take_sigterm()
        self._restore_metrics(trainer)
        self._saved_at = time.monotonic()
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            in_first_process(lambda: self._prepare_folder(is_new=not trainer.ckpt_path))

    def _take_sigterm(self) -> None:
        """Lightning would leave between the parts of an accumulated gradient, and have its handler talk to the other
        processes in the midst of what they say to each other.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._terminate)  # Lightning puts back the former one

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Have the step's state saved when all of it is done."""
        self._validated = self._validated or not trainer.sanity_checking

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before an optimiser step: put right what was loaded, save what is due, leave when asked to."""
        if self._loaded is not None:
            self._restore(trainer, self._loaded)
            self._loaded = None
        done: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        if done.processed % trainer.accumulate_grad_batches:
            return
        asked = self._terminated or trainer.received_sigterm
        stop, due = in_any_process(asked, self._is_due(trainer.global_step), device=trainer.strategy.root_device)
        if stop or due:
            self._save(trainer)
        if stop:
            raise SIGTERMException

    def _is_due(self, steps: int) -> bool:
        counted = self.every_n_steps is not None and steps > 0 and steps % self.every_n_steps == 0
        waited = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        return self._validated or counted or waited

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last state."""
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        self._validated, self._saved_at = False, time.monotonic()
        step = trainer.global_step
        if step == self._saved_step or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert self.folder is not None
        in_first_process(self._check_folder)
        self._saving, error = True, None
        try:
            trainer.save_checkpoint(checkpoint_path(self.folder, step))
        except CheckpointError as raised:
            error = raised
            trainer.strategy.barrier()  # at which save_checkpoint waits in the other processes
        finally:
            self._saving = False
        agree_on(error)
        self._saved_step = step
        in_first_process(self._remove_old)

    def _check_folder(self) -> None:
        if self.folder is not None and not self.folder.is_dir():
            raise CheckpointError(f"{self.folder}: the folder is gone, expected it where training began to write")

    def _remove_old(self) -> None:
        assert self.folder is not None
        kept = [path for path in checkpoints(self.folder) if checkpoint_step(path) <= self._saved_step]
        for path in kept[self.keep :]:
            remove(path)

    def state_dict(self) -> dict[str, Any]:
        """Random state of every process, last metrics; nothing in a checkpoint that somebody else asks for."""
        if not self._saving:
            return {}
        metrics = {name: value.detach().cpu() for name, value in self._trainer.callback_metrics.items()}
        return {"random": exchanged(_random_state()), "metrics": metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the first step."""
        self._loaded = state_dict or None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the counters those of a run between two batches."""
        if self._saving:
            _settle(checkpoint["loops"]["fit_loop"], trainer.num_training_batches)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember what need not be saved again."""
        self._saved_step = checkpoint["global_step"]

    def _restore_metrics(self, trainer: L.Trainer) -> None:
        """The metrics that are known from before: Lightning clears them, and a strategy may load after that."""
        if self._loaded is not None:
            trainer.callback_metrics.update(self._loaded["metrics"])

    def _restore(self, trainer: L.Trainer, state: Mapping[str, Any]) -> None:
        """The state that making loaders, and going around the loop without a step, have changed since it was loaded."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        states = state["random"]
        if trainer.global_rank < len(states):  # a process that the run did not have before draws as it likes
            _set_random_state(states[trainer.global_rank])


def _settle(loop: dict[str, Any], num_batches: float) -> None:
    """Counters of Lightning's fit loop, as they are between two batches: the next not begun, its epoch begun.

    At the end of training Lightning counts the epoch as done, also where ``max_steps`` cut it; it is taken back, so
    that a longer run goes on inside of it.
    """
    batches, epochs = loop["epoch_loop.batch_progress"], loop["epoch_progress"]
    batches["is_last_batch"] = False
    for counted in (batches["total"], batches["current"]):
        counted["ready"] = counted["started"] = counted["processed"] = counted["completed"]
    if epochs["current"]["processed"] < epochs["current"]["started"]:
        return
    if batches["current"]["completed"] < num_batches:
        for counted in (epochs["total"], epochs["current"]):
            counted["processed"] = counted["completed"] = counted["started"] - 1
    else:
        batches["current"].update(ready=0, started=0, processed=0, completed=0)
        for counted in (epochs["total"], epochs["current"]):
            counted["ready"] = counted["started"] = counted["started"] + 1


def _random_state() -> dict[str, Any]:
    """States of all generators, as values that ``torch.load`` reads with ``weights_only``."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])

"""``bytelm fit --resume RUN``: the configuration, the last good checkpoint and the metrics of a run that goes on."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from bytelm.cli.console import write_error
from bytelm.errors import ConfigError
from bytelm.training.checkpoint_io import checkpoint_step, checkpoints, last_good_checkpoint, replacing

CONFIG_FILE = "config.yaml"
_IN_RUN_FOLDER = {"CSVLogger": CSVLogger, "TensorBoardLogger": TensorBoardLogger}


@dataclass(frozen=True)
class Resumed:
    """A run that goes on.

    Attributes:
        folder: its folder.
        checkpoint: its last good checkpoint.
    """

    folder: Path
    checkpoint: Path

    @property
    def step(self) -> int:
        """Optimiser steps that the checkpoint has behind it."""
        return checkpoint_step(self.checkpoint)

    def place(self, settings: Namespace) -> None:
        """Set the checkpoint, and have the loggers write where they did; other loggers than Lightning's files stay."""
        settings.ckpt_path = str(self.checkpoint)
        loggers = settings.trainer.logger
        if loggers is False:
            settings.trainer.default_root_dir = str(self.folder)
        elif isinstance(loggers, list):
            settings.trainer.logger = [self._placed(logger) for logger in loggers]
        else:
            settings.trainer.logger = self._placed(loggers)

    def _placed(self, logger: Any) -> Any:
        if isinstance(logger, Namespace) and logger.class_path.split(".")[-1] in _IN_RUN_FOLDER:
            logger = logger.clone()
            logger.init_args.save_dir = str(self.folder.parent.parent)
            logger.init_args.name, logger.init_args.version = self.folder.parent.name, self.folder.name
        return logger

    def keep_metrics(self, loggers: Iterable[Logger]) -> None:
        """Have the loggers keep what was logged up to the checkpoint, and drop what was logged after it."""
        for logger in loggers:
            if isinstance(logger, CSVLogger):
                self._keep_rows(logger)
            elif isinstance(logger, TensorBoardLogger):
                logger._kwargs["purge_step"] = self.step  # an argument of SummaryWriter

    def _keep_rows(self, logger: CSVLogger) -> None:
        """Rows of earlier steps stay: a CSVLogger that finds a file removes it, so it must not find it."""
        path = Path(logger.log_dir) / "metrics.csv"
        aside = path.with_name("metrics.csv.kept")
        if path.exists():
            path.replace(aside)
        writer = logger.experiment
        if aside.exists():
            with aside.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if _step(row) < self.step]
            writer.metrics_keys = list(reader.fieldnames or [])
            text = io.StringIO(newline="")
            table = csv.DictWriter(text, writer.metrics_keys)
            table.writeheader()
            table.writerows(rows)
            with replacing(path) as out:
                out.write(text.getvalue().encode())
            aside.unlink()


def usual_loggers(root: str | None) -> list[Namespace]:
    """CSV and TensorBoard in one run folder, ``ROOT/lightning_logs/version_N``: what writes metrics by default."""
    place = Namespace(save_dir=root or ".", name="lightning_logs")
    return [
        Namespace(class_path=f"lightning.pytorch.loggers.{name}", init_args=place.clone()) for name in _IN_RUN_FOLDER
    ]


def _step(row: dict[str, Any]) -> float:
    """The step of a row; of one that was cut while it was written, which is later than the checkpoint, infinity."""
    return float("inf") if None in row.values() else int(row["step"])


def find_resumed(args: Sequence[str]) -> tuple[list[str], Resumed | None]:
    """The arguments with ``--resume RUN`` put as ``--config RUN/config.yaml``, and the run that is meant.

    Raises:
        ConfigError: ``--resume`` with another command, without a folder, or with ``--config`` or ``--ckpt_path``.
        CheckpointError: the folder has no good checkpoint.
    """
    rest = list(args)
    names = [arg.partition("=")[0] for arg in rest]
    if "--resume" not in names:
        return rest, None
    if rest[0] != "fit":
        raise ConfigError(f"--resume: found it with {rest[0]}, expected it with fit")
    at = names.index("--resume")
    equals, value = rest[at].partition("=")[1:]
    if not equals:
        value = rest[at + 1] if at + 1 < len(rest) else ""
    del rest[at : at + (1 if equals else 2)]
    for name in ("--config", "-c", "--ckpt_path"):
        if name in names:
            raise ConfigError(f"--resume: found it with {name}, expected the run's own configuration and checkpoint")
    folder = Path(value)
    if not value or not (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"--resume: found {value!r}, expected the folder of a run, which has {CONFIG_FILE}")
    checkpoint = _checkpoint(folder / "checkpoints")
    return [rest[0], "--config", str(folder / CONFIG_FILE), *rest[1:]], Resumed(folder.resolve(), checkpoint.resolve())


def _checkpoint(folder: Path) -> Path:
    """The last good checkpoint, of which process 0 tells the others when all load; they have the latest till then."""
    if _get_rank() and (found := checkpoints(folder)):
        return found[0]
    return last_good_checkpoint(folder, lambda line: write_error(f"warning: {line}"))

"""What a run was made of: ``RUN/run.json``."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning as L

from bytelm.errors import CheckpointError, CorpusError
from bytelm.hub.card import RUN_FILE
from bytelm.hub.checkpoint import package_version
from bytelm.hub.json_files import read_json
from bytelm.training.callbacks import run_folder
from bytelm.training.checkpoint_io import replacing
from bytelm.training.parallel import in_first_process

_LIBRARIES = ("torch", "lightning", "numpy", "torchmetrics", "jsonargparse", "safetensors", "tokenizers")


class _Digested(Protocol):
    """Data whose splits have digests."""

    def given(self, split: str) -> bool: ...

    def digest(self, split: str) -> str: ...


@runtime_checkable
class _Mixed(Protocol):
    """Data that may come from several corpora."""

    @property
    def mixture(self) -> list[dict[str, Any]] | None: ...


class RecordRun(L.Callback):
    """Writes ``RUN/run.json``: the digests of the corpora, the shares of several to train on, and for each start the
    command, the versions, the commit and the step.

    A run that goes on must find the corpora of its first start.

    Args:
        command: line that started the run; None where it is not known.
    """

    def __init__(self, command: str | None = None) -> None:
        self.step, self.command = 0, command

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the step at which the run goes on; some strategies load after ``on_fit_start``.

        Raises:
            CorpusError: the run goes on with another corpus than before.
            CheckpointError: the file of the run that goes on is damaged.
        """
        self.step = checkpoint["global_step"]
        self._record(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file of a run that is new."""
        if not trainer.ckpt_path:
            self._record(trainer)

    def _record(self, trainer: L.Trainer) -> None:
        path = run_folder(trainer) / RUN_FILE
        in_first_process(lambda: self._write(path, trainer))

    def _write(self, path: Path, trainer: L.Trainer) -> None:
        data: _Digested = trainer.datamodule  # type: ignore[attr-defined]
        corpora = {split: data.digest(split) for split in ("train", "valid") if data.given(split)}
        starts = []
        if trainer.ckpt_path and path.is_file():
            starts = _earlier_starts(path, corpora)
        record: dict[str, Any] = {
            "corpora": corpora,
            "starts": [*starts, _start(self.step, self.command, trainer.world_size)],
        }
        if isinstance(data, _Mixed) and data.mixture is not None:
            record["mixture"] = data.mixture
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write((json.dumps(record, ensure_ascii=False, indent=1) + "\n").encode())


def _earlier_starts(path: Path, corpora: dict[str, str]) -> list[Any]:
    record = read_json(path)
    before, starts = record.get("corpora"), record.get("starts")
    if not isinstance(before, dict) or not isinstance(starts, list):
        raise CheckpointError(f"{path}: found no corpora and starts, expected the record of a run")
    for split, digest in corpora.items():
        if before.get(split) != digest:
            raise CorpusError(
                f"data.{split}: found a corpus of digest {digest[:16]}…, expected {str(before.get(split))[:16]}… as in"
                f" {path}"
            )
    return starts


def _start(step: int, command: str | None, processes: int) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "step": step,
        "processes": processes,
        "bytelm": package_version(),
        "commit": _commit(Path(__file__).parent),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of the checkout that holds ``folder``, with ``-dirty`` where its files differ; None without one."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    tracked = ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
        return subprocess.run(command, capture_output=True, check=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

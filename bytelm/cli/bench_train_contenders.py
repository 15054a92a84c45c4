"""What ``bytelm bench train`` measures: runs as ``bytelm fit`` would make them, and rivals in the same trainer."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bytelm.benchmarks.coders import Skipped
from bytelm.benchmarks.training_rivals import new_rivals, position_operations, rival_config, rival_vocabulary
from bytelm.cli.arguments import resolve_encoding
from bytelm.corpus import build_corpus
from bytelm.corpus.default_text import default_texts
from bytelm.corpus.manifest import MANIFEST_FILE
from bytelm.errors import ConfigError
from bytelm.model.config import ModelConfig
from bytelm.model.ends import NextPatchConfig
from bytelm.training import ByteLMModule, CorpusData, LossConfig, OptimizerConfig
from bytelm.training.non_finite import SkipNonFinite


@dataclass(frozen=True)
class Contender:
    """One of those that take turns.

    Attributes:
        name: of it.
        compiled: whether ``torch.compile`` has it.
        model: of the module.
        module: what is trained; kept from turn to turn.
        data: its batches.
        trainer: arguments of the trainer.
        callbacks: makes those of a run.
        parameters: weights.
        positions: of a step.
        operations: of a step, forward and backward pass.
        chars: characters of a step; None where there is no text.
        rival: whether it is not ours.
    """

    name: str
    compiled: bool
    model: ModelConfig
    module: L.LightningModule
    data: L.LightningDataModule
    trainer: Mapping[str, Any]
    callbacks: Callable[[], list[Callback]]
    parameters: int
    positions: int
    operations: float
    chars: float | None
    rival: bool = False


def text_folder(settings: Mapping[str, Any], scratch: Path) -> tuple[Path, str]:
    """The corpus of ``data.train``; where it is not there, one of the embedded text, made in ``scratch``.

    Returns:
        The folder, and what it is in a few words.
    """
    given = settings["data"]["train"]
    if given is not None and (Path(given) / MANIFEST_FILE).is_file():
        return Path(given), str(given)
    encoding = resolve_encoding(settings["model"]["encoding"])
    folder = scratch / encoding.name
    if not folder.is_dir():
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8", delete=False) as file:
            file.write("\n".join(default_texts()))
        build_corpus([Path(file.name)], encoding, folder, workers=0)
        Path(file.name).unlink()
    return folder, f"the embedded text in {encoding.name}"


def our_contender(name: str, settings: Mapping[str, Any], corpus: Path, steps: int, *, compiled: bool) -> Contender:
    """The run that settings of ``fit`` describe, with what ``fit`` adds to every step.

    Args:
        name: of the contender.
        settings: as :func:`bytelm.cli.lightning.read_settings` gives them.
        corpus: in the place of ``data.train``.
        steps: of a turn; the epoch is as long.
        compiled: whether its blocks are compiled.
    Raises:
        ConfigError: the settings are not those of a whole byte model; or a value is wrong.
    """
    model, data, accumulate = settings["model"], settings["data"], settings["trainer"]["accumulate_grad_batches"]
    if model.get("frozen") is not None:
        raise ConfigError(f"model.frozen: found {str(model['frozen'])!r}, expected none: draft heads are not measured")
    module = ByteLMModule(**_arguments({**model, "compile": compiled}))
    windows = data["batch_size"] * accumulate
    chosen = {**data, "train": corpus, "valid": None, "test": None, "windows_per_epoch": windows * steps}
    batches = CorpusData(**chosen)
    positions = windows * batches.window // module.config.patch
    return Contender(
        name=name,
        compiled=compiled,
        model=module.config,
        module=module,
        data=batches,
        trainer=_trainer_arguments(settings["trainer"]),
        callbacks=lambda: [SkipNonFinite()],
        parameters=module.config.num_parameters(),
        positions=positions,
        operations=positions * position_operations(module.config, batches.window),
        chars=windows * batches.window * batches.chars_per_symbol("train"),
    )


def rival_contenders(
    settings: Mapping[str, Any], config: ModelConfig, vocab_size: int | None, steps: int, *, compiled: bool
) -> tuple[list[Contender], list[Skipped]]:
    """Rivals with the body of a model, on random tokens: as many positions of the body as ours, the same optimiser.

    Args:
        settings: of our run.
        config: of our model.
        vocab_size: V of the rivals; None: so that their head has as many products as our merger and heads.
        steps: of a turn.
        compiled: whether they are compiled whole.
    """
    vocab_size = vocab_size or rival_vocabulary(config)
    rivals, skipped = new_rivals(config, vocab_size)
    data, trainer = settings["data"], settings["trainer"]
    window, accumulate = data["window"], trainer["accumulate_grad_batches"]
    theirs = rival_config(config, vocab_size)
    positions = window // config.patch
    windows = data["batch_size"] * accumulate
    optimizer = OptimizerConfig.from_dict(settings["model"]["optimizer"], "model.optimizer")
    optimizer = dataclasses.replace(optimizer, decay_groups=(), tables="all_rows")
    found = [
        Contender(
            name=rival.name,
            compiled=compiled,
            model=theirs,
            module=_RivalModule(rival, optimizer, compiled),
            data=_RandomTokens(windows * steps, positions, vocab_size, data["batch_size"]),
            trainer=_trainer_arguments(trainer),
            callbacks=list,
            parameters=sum(p.numel() for p in rival.parameters()),
            positions=windows * positions,
            operations=windows * positions * position_operations(theirs, positions),
            chars=None,
            rival=True,
        )
        for rival in rivals
    ]
    return found, skipped


def _arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the module from plain values."""
    kinds = {"config": ModelConfig, "optimizer": OptimizerConfig, "loss": LossConfig, "next_patch": NextPatchConfig}
    found = {**model, "encoding": resolve_encoding(model["encoding"]).name}
    for name, kind in kinds.items():
        if found.get(name) is not None:
            found[name] = kind.from_dict(found[name], f"model.{name}")  # type: ignore[attr-defined]
    if found.get("init_from") is not None:
        found["init_from"] = Path(found["init_from"])
    return found


def _trainer_arguments(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings, what decides how long a step takes; one device."""
    names = ("accelerator", "gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches")
    return {**{name: trainer[name] for name in names}, "devices": 1}


class _RivalModule(L.LightningModule):
    """A rival, trained as Lightning's documentation shows it."""

    def __init__(self, rival: nn.Module, optimizer: OptimizerConfig, compiled: bool) -> None:
        super().__init__()
        self.rival, self.optimizer_config = rival, optimizer
        if compiled:
            self.rival.compile()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss: Tensor = self.rival(batch)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        """The optimiser and the schedule of our run."""
        return self.optimizer_config.configure(self.rival, self.trainer.estimated_stepping_batches)


class _RandomTokens(L.LightningDataModule):
    """So many rows of random tokens, in memory."""

    def __init__(self, rows: int, length: int, vocab_size: int, batch_size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(0, vocab_size, (rows, length), generator=generator)
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        """The rows in their order."""
        return DataLoader(self.tokens, batch_size=self.batch_size)  # type: ignore[arg-type] # a sequence of rows

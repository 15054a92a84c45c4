"""LightningCLI over the modules and data of this package, behind ``bytelm fit | validate | test``."""

import contextlib
import inspect
import logging
import pickle
import shlex
import sys
import zipfile
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from bytelm.cli import training
from bytelm.cli.arguments import resolve_encoding
from bytelm.cli.config_errors import ConfigExplainer
from bytelm.cli.console import is_quiet, shows_progress, write_error
from bytelm.cli.examples import format_examples
from bytelm.cli.resume import CONFIG_FILE, find_resumed, usual_loggers
from bytelm.cli.twins import find_twin
from bytelm.errors import CheckpointError, ConfigError, EncodingError
from bytelm.hub.tensor_files import refusal
from bytelm.training import ByteLMModule, CorpusData, DraftHeadsModule, InstructData, TextData, TokenData
from bytelm.training.callbacks import ExportModel, LogSamples, run_folder
from bytelm.training.checkpoint_io import replacing
from bytelm.training.non_finite import SkipNonFinite
from bytelm.training.parallel import in_first_process, process_number
from bytelm.training.quiet import quiet_lightning
from bytelm.training.run_record import RecordRun
from bytelm.training.save_run import SaveRun
from bytelm.training.sharding import ShardedStrategy
from bytelm.training.throughput import LogThroughput

TERMINATED = 75
"""Exit status after SIGTERM, when the state is saved: EX_TEMPFAIL of sysexits.h, which asks to try again."""

_UNPICKLING = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
_SPLITS = {"fit": ("train", "valid"), "validate": ("valid",), "test": ("test",)}
"""Corpora that a command reads, the one first that it cannot do without."""


class _SaveConfig(SaveConfigCallback):
    """Writes ``RUN/config.yaml`` whole or not at all, and not before a run is known to begin: it goes on from it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file, but that of ``fit`` not yet: a checkpoint may not go with its options."""
        if stage != "fit":
            self._save(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file of ``fit``."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        """Write it in the first process, but all must ask for the folder."""
        path = run_folder(trainer) / CONFIG_FILE
        if not self.already_saved:
            in_first_process(lambda: self._write(path))
        self.already_saved = True

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(self.parser.dump(self.config, skip_none=False).encode())


class _HelpFormatter(DefaultHelpFormatter):
    """Keeps the lines of a paragraph that begins with a backspace, as click does: examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(
            p.removeprefix("\b\n") if p.startswith("\b") else super(_HelpFormatter, self)._fill_text(p, width, indent)
            for p in paragraphs
        )


class _CLI(LightningCLI):
    """LightningCLI for one command, with one-line errors, and encodings by path.

    It trains a byte model on corpora, or, where the configuration names a tokenizer, a model of its tokens; where it
    names a frozen model, draft heads on text; where it names pairs, a byte model on completions.
    """

    def __init__(self, args: Sequence[str], output: contextlib.ExitStack) -> None:
        self.line = shlex.join(["bytelm", *args])
        args, self.resumed = find_resumed(find_twin(args))
        self.name = args[0]
        self.explainer = ConfigExplainer(args)
        self.output = output
        module, data = self._kinds()
        super().__init__(
            module,
            data,
            args=list(args),
            seed_everything_default=0,
            save_config_callback=_SaveConfig,
            trainer_defaults={"reload_dataloaders_every_n_epochs": 1},
            parser_kwargs={
                "prog": "bytelm",
                "formatter_class": _HelpFormatter,
                "exit_on_error": False,
                self.name: {
                    "description": f"{inspect.getdoc(getattr(training, self.name))}\n\n{format_examples(self.name)}",
                    "usage": f"bytelm {self.name} [OPTIONS]",
                    "exit_on_error": False,
                },
            },
        )

    def _kinds(self) -> tuple[type[LightningModule], type[LightningDataModule]]:
        """What is trained, and on what."""
        if self.explainer.mentions("model", "frozen"):
            return DraftHeadsModule, TextData
        if self.explainer.mentions("model", "tokenizer"):
            return ByteLMModule, TokenData
        if {"pairs", "valid_pairs", "test_pairs"} & (self.explainer.read_given().get("data") or {}).keys():
            return ByteLMModule, InstructData
        return ByteLMModule, CorpusData

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # a parser takes most of a second to build
        """The subcommand that runs, and the arguments that the command line fills in itself."""
        return {self.name: LightningCLI.subcommands()[self.name]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Keep a parser to know the names of all options."""
        self.explainer.parser = parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, with errors as :class:`ConfigError`; and check the file of ``--ckpt_path``."""
        assert isinstance(args, list)
        try:
            self.config = parser.parse_args(args)
        except (ArgumentError, ValueError, TypeError) as error:
            raise self.explainer.explain(error) from error
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is not None and Path(path).is_file() and not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path}: found no checkpoint of Lightning, expected a .ckpt file that fit wrote")

    def before_instantiate_classes(self) -> None:
        """From here on, what goes to standard output is progress (``--help`` and ``--print_config`` are done)."""
        self.output.enter_context(contextlib.redirect_stdout(sys.stderr))

    def instantiate_classes(self) -> None:
        """Instantiate, with errors as :class:`ConfigError`."""
        given = self.config
        self.config = given.clone()
        settings = self.config[self.subcommand]
        try:
            if "encoding" in settings.model:
                settings.model.encoding = resolve_encoding(settings.model.encoding).name
        except EncodingError as error:
            raise ConfigError(f"model.encoding: {str(error).removeprefix('encoding: ')}") from error
        self._given = given
        if self.subcommand == "fit" and (settings.trainer.logger is None or settings.trainer.logger is True):
            settings.trainer.logger = usual_loggers(settings.trainer.default_root_dir)
        if self.resumed is not None:
            self.resumed.place(settings)
        try:
            super().instantiate_classes()
        except (ConfigError, ValueError) as error:
            raise self.explainer.explain_values(error, given[self.subcommand].as_dict()) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with the callbacks of every run where the configuration has none of the kind."""
        self.config = self._given  # with the path of an encoding, if that is what was given: this is what is saved
        settings = self.config_init[self.subcommand].trainer
        callbacks = settings.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        usual: list[type[Callback]] = [ExportModel]
        if self.subcommand == "fit":
            usual += [SkipNonFinite, RecordRun, LogThroughput]
            usual += [LogSamples] if isinstance(self.model, ByteLMModule) else []
            usual += [SaveRun] if settings.enable_checkpointing is not False else []
        missing = [kind() for kind in usual if not any(isinstance(callback, kind) for callback in callbacks)]
        settings.callbacks = [*callbacks, *missing]
        for record in (callback for callback in settings.callbacks if isinstance(callback, RecordRun)):
            record.command = record.command or self.line
        if not shows_progress() and not any(isinstance(callback, ProgressBar) for callback in callbacks):
            settings.enable_progress_bar = False
        if is_quiet() and not any(isinstance(callback, ModelSummary) for callback in callbacks):
            settings.enable_model_summary = False
        trainer = super().instantiate_trainer(**kwargs)
        for logger in trainer.loggers:
            _ = logger.version  # looked up now: one that asks when another has made the folder takes the next number
        return trainer

    def after_instantiate_classes(self) -> None:
        """Refuse corpora that cannot be used before anything is set up and printed; take up the metrics of a run."""
        self._check_processes()
        self._check_strategy()
        needed, *others = _SPLITS[str(self.subcommand)]
        for split in (needed, *others):
            if split == needed or self.datamodule.given(split):
                self.datamodule.check(split, self.model)
        if self.resumed is not None and self.trainer.is_global_zero:
            self.resumed.keep_metrics(self.trainer.loggers)

    def _check_processes(self) -> None:
        """Refuse another number of processes than torchrun or SLURM has started."""
        environment = getattr(self.trainer.strategy, "cluster_environment", None)
        if environment is not None:
            try:
                environment.validate_settings(self.trainer.num_devices, self.trainer.num_nodes)
            except ValueError as error:
                raise ConfigError(f"trainer.devices: {' '.join(str(error).split())}") from error

    def _check_strategy(self) -> None:
        """Refuse strategies that unpickle what is in a checkpoint, whatever it asks for."""
        strategy = self.trainer.strategy
        if isinstance(strategy, _UNPICKLING) and not isinstance(strategy, ShardedStrategy):
            raise ConfigError(
                f"trainer.strategy: found {type(strategy).__name__}, expected sharded, ddp or one process: it runs"
                " code that a checkpoint holds"
            )


class _Reader(_CLI):
    """The command line that is read and not obeyed."""

    def _set_seed(self) -> None:
        """Draw nothing."""

    def _add_instantiators(self) -> None:
        """Nothing is made."""

    def before_instantiate_classes(self) -> None:
        """Print nothing."""

    def instantiate_classes(self) -> None:
        """Make nothing, so that no model is built."""

    def after_instantiate_classes(self) -> None:
        """Open no corpus."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Train nothing."""


def read_settings(args: Sequence[str]) -> dict[str, Any]:
    """What ``fit`` would be given by ``args`` (``--config …`` and other options), defaults included, as plain values.

    Raises:
        ConfigError: an argument or a line of a configuration file is wrong.
    """
    with contextlib.ExitStack() as output, _errors_of_lightning():
        settings: dict[str, Any] = _Reader(["fit", *args], output).config.fit.as_dict()
    return settings


def run(args: Sequence[str]) -> dict[str, Any] | None:
    """Run ``args`` (``fit --config …``) to the end; what Lightning prints goes to standard error.

    Returns:
        ``run`` (folder), ``metrics``, and after ``fit`` also ``model`` (the exported folder), ``step`` and ``epoch``;
        None in the other processes of a distributed run.
    Raises:
        ConfigError: an argument or a line of a configuration file is wrong.
        CheckpointError: ``--ckpt_path`` is no checkpoint; the run to resume has no good one; one cannot be written.
        TrainingError: the loss or the gradient was not finite too many times in a row.
        SystemExit: 75 after SIGTERM.
    """
    quiet_lightning()
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("high")
    with contextlib.ExitStack() as output, _errors_of_lightning():
        trainer = _CLI(args, output).trainer
    folder = run_folder(trainer)
    if not trainer.is_global_zero:
        return None
    result: dict[str, Any] = {"run": str(folder)}
    if trainer.state.fn == "fit":
        export = next(c for c in trainer.callbacks if isinstance(c, ExportModel))  # type: ignore[attr-defined]
        result |= {"model": str(folder / export.folder), "step": trainer.global_step}
        result["epoch"] = trainer.current_epoch
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {**result, "metrics": metrics}


@contextlib.contextmanager
def _errors_of_lightning() -> Iterator[None]:
    """Mistakes in settings as :class:`ConfigError`, and Ctrl-C as what it is."""
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"--ckpt_path: {refusal(error)}, expected a checkpoint that fit wrote") from error
    except SIGTERMException as error:
        if process_number() > 0:  # a launcher that sees a failure in one process kills the others
            raise SystemExit(0) from error
        write_error("terminated; the run goes on with bytelm fit --resume RUN")
        raise SystemExit(TERMINATED) from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning has shut down and leaves with status 1
            raise KeyboardInterrupt from error
        raise

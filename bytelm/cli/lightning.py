"""``bytelm fit | validate | test``: LightningCLI over the module and data of this package."""

import argparse
import logging
import warnings
from collections.abc import Sequence

import torch
from lightning.pytorch.cli import LightningCLI

from bytelm.errors import ConfigError
from bytelm.training import ByteLMModule, CorpusData
from bytelm.training.callbacks import ExportModel

# Lightning and torch speak of choices that this command has already made for the user.
_NOISE = (
    r".*does not have many workers.*",
    r".*GPU available but not used.*",
    r".*Trainer already configured with model summary.*",
    r".*isinstance\(treespec, LeafSpec\).*",
)


class _CLI(LightningCLI):
    """LightningCLI with the three commands that make sense here."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Subcommands, and the arguments that the command line fills in itself."""
        names = ("fit", "validate", "test")
        return {name: LightningCLI.subcommands()[name] for name in names}


def run(args: Sequence[str]) -> None:
    """Run ``args`` (``fit --config …``) to the end.

    Raises:
        ConfigError: an argument or a line of a configuration file is wrong.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for pattern in _NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    torch.set_float32_matmul_precision("high")
    try:
        _CLI(
            ByteLMModule,
            CorpusData,
            args=list(args),
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"reload_dataloaders_every_n_epochs": 1, "callbacks": [ExportModel()]},
            parser_kwargs={"exit_on_error": False},
        )
    except argparse.ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from error

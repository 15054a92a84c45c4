"""Advice of Lightning and torch that does not concern a user of this package."""

import logging
import warnings

_ADVICE = (
    r".*does not have many workers.*",
    r".*GPU available but not used.*",
    r".*Trainer already configured with model summary.*",
    r".*module\(s\) in eval mode at the start of training.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*Experiment logs directory .* exists and is not empty.*",
)


def quiet_lightning() -> None:
    """Keep warnings about the number of loader workers and the like, and tips, from the terminal."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for pattern in _ADVICE:
        warnings.filterwarnings("ignore", message=pattern)

"""A model of bytes in the folder that transformers reads: which files it has, and how it becomes a model again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bytelm.encoding import encoding_from_dict
from bytelm.errors import CheckpointError, ConfigError, EncodingError
from bytelm.hub.checkpoint import Checkpoint, put
from bytelm.hub.json_files import read_config
from bytelm.hub.weights import open_weights
from bytelm.model.build import build_model, fill_buffers
from bytelm.model.config import ModelConfig

MODEL_TYPE = "bytelm"
"""What ``config.json`` says to transformers."""

PREFIX = "model."
"""What the names of our parameters have before them in the file."""


def is_exported(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of such a folder."""
    return config.get("model_type") == MODEL_TYPE


def load_exported(folder: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a folder that ``bytelm convert --to hf`` or ``save_pretrained`` wrote. Its code is not run.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not agree; the message names it.
    """
    config = read_config(folder)
    try:
        model_config = ModelConfig.from_dict(config.get("model"), "model")
        encoding = encoding_from_dict(config.get("encoding") or {})
    except (ConfigError, EncodingError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    model, weights = build_model(model_config, device="meta"), open_weights(folder)
    for name in weights.names:
        if not name.startswith(PREFIX):
            raise CheckpointError(f"{weights.where(name)}: tensor {name}, expected names that begin with {PREFIX}")
    state = {name.removeprefix(PREFIX): weights.read(name).to(device) for name in weights.names}
    put(model, state, folder)
    fill_buffers(model, device)
    return Checkpoint(model.eval(), encoding)

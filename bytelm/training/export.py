"""A checkpoint of a run as a model in a folder, without the run's data and without other processes."""

from pathlib import Path

import torch

from bytelm.encoding import encoding_from_dict
from bytelm.errors import CheckpointError, ConfigError, EncodingError
from bytelm.hub.checkpoint import save_checkpoint
from bytelm.model.build import build_model
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ModelConfig
from bytelm.training.checkpoint_io import read_plain
from bytelm.training.sharding import META_FILE, read_shards

_PREFIX = "model."


def export_checkpoint(path: Path, out: Path, *, int8: bool = False, four_bit_tables: bool = False) -> int:
    """Write the model of a checkpoint, a file or a folder of shards, to a folder that ``bytelm.load`` reads.

    Args:
        path: what :class:`SaveRun` wrote; it is not compared with its digest.
        out: the folder.
        int8, four_bit_tables: see :func:`bytelm.hub.checkpoint.save_checkpoint`.
    Returns:
        The optimiser steps behind it.
    Raises:
        CheckpointError: ``path`` is no checkpoint of a byte model, or ``out`` cannot be written.
    """
    is_folder = path.is_dir()
    saved = read_plain(path / META_FILE if is_folder else path)
    found = saved.get("bytelm", {})
    try:
        config = ModelConfig.from_dict(found["model"], "model")
        encoding = encoding_from_dict(found["encoding"]["table"])
    except (KeyError, TypeError, ConfigError, EncodingError) as error:
        raise CheckpointError(f"{path}: found no byte model ({error}), expected the checkpoint of one") from None
    model = build_model(config, device="meta")
    weights = _read_shards(path, model) if is_folder else saved["state_dict"]
    model.load_state_dict({name.removeprefix(_PREFIX): tensor for name, tensor in weights.items()}, assign=True)
    step = int(saved["global_step"])
    provenance = {"step": step, "epoch": saved["epoch"], "checkpoint": path.name}
    save_checkpoint(out, model, encoding, provenance, int8=int8, four_bit_tables=four_bit_tables)
    return step


def _read_shards(path: Path, model: ByteLM) -> dict[str, torch.Tensor]:
    weights = {_PREFIX + name: torch.empty_like(t, device="cpu") for name, t in model.state_dict().items()}
    read_shards(path, {"state_dict": weights})
    return weights

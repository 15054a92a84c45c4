"""A model of tokens in a folder of our own: what LLaMA's layout has no words for, n-gram tables, can be in it."""

from pathlib import Path
from typing import Any

import torch

from bytelm.errors import CheckpointError, ConfigError
from bytelm.hub.checkpoint import fill, package_version, write_folder
from bytelm.hub.json_files import read_json
from bytelm.model.build import build_model
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ModelConfig
from bytelm.model.layout import lay_out_for_decoding
from bytelm.tokenizer import BPETokenizer, vocabulary_to_dict

FORMAT = "bytelm-token-model"
_CONFIG = "config.json"


def save_token_model(folder: Path, model: ByteLM, tokenizer: BPETokenizer, provenance: dict[str, Any]) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``tokenizer.json``; all or nothing.

    Args:
        folder: made where missing; one that was written so before is replaced.
        model: of tokens.
        tokenizer: of its tokens.
        provenance: plain values about the run, kept in ``config.json``.
    Raises:
        CheckpointError: the folder holds something else, or cannot be written.
    """
    config = {
        "format": FORMAT,
        "bytelm_version": package_version(),
        "tokenizer": {"name": tokenizer.name, "digest": tokenizer.digest},
        "model": model.config.to_dict(),
        "provenance": provenance,
    }
    write_folder(folder, config, model.state_dict(), {"tokenizer.json": vocabulary_to_dict(tokenizer.vocabulary)})


def load_token_model(
    folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> tuple[ByteLM, BPETokenizer]:
    """Read a folder that :func:`save_token_model` wrote.

    Args:
        folder: with the three files.
        device: where the model goes.
        dtype: of its weights; by default as in the file.
    Raises:
        CheckpointError: a file is missing or damaged, or the tokenizer is not the one the model was trained with.
    """
    config, tokenizer = read_json(folder / _CONFIG), BPETokenizer.from_folder(folder)
    try:
        model_config = ModelConfig.from_dict(config.get("model", {}), "model")
    except ConfigError as error:
        raise CheckpointError(f"{folder / _CONFIG}: {error}") from error
    named = config.get("tokenizer")
    digest = named.get("digest") if isinstance(named, dict) else None
    if tokenizer.digest != digest:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'}: digest {tokenizer.digest[:16]}…, expected {str(digest)[:16]}… of {_CONFIG}"
        )
    model = build_model(model_config, device="meta")
    fill(model, folder, device)
    if dtype is not None:
        model.to(dtype)
    lay_out_for_decoding(model)
    return model.eval(), tokenizer

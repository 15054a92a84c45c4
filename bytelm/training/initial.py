"""The model that a run begins with: fresh, or from a checkpoint folder, with a next-patch module added or not."""

import dataclasses
from pathlib import Path

from bytelm.encoding import Encoding
from bytelm.errors import ConfigError
from bytelm.hub.checkpoint import load_checkpoint
from bytelm.model.build import build_model
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ModelConfig
from bytelm.model.ends import NextPatchConfig
from bytelm.model.presets import get_preset


def initial_model(
    config: ModelConfig | None,
    preset: str | None,
    init_from: Path | None,
    next_patch: NextPatchConfig | None,
    encoding: Encoding,
    seed: int,
) -> ByteLM:
    """The model of ``config``, of ``preset``, or of the folder ``init_from``: exactly one of them is given.

    Args:
        init_from: a folder whose weights are taken; in float32, whatever they are there.
        next_patch: the module to add, with fresh weights; a model that has the same one keeps it.
        encoding: the one of the corpora; the folder must be of the same.
        seed: of the fresh weights.
    Raises:
        ConfigError: not exactly one is given; the folder is of another encoding; the model cannot have a next-patch
            module, or has another one.
        CheckpointError: the folder is no checkpoint.
    """
    if init_from is None:
        return build_model(initial_config(config, preset, init_from, next_patch), seed)
    _check_choice(config, preset, init_from)
    loaded = load_checkpoint(init_from)
    if loaded.encoding.digest != encoding.digest:
        raise ConfigError(
            f"model.init_from: {init_from}: found encoding {loaded.encoding.name!r} of digest"
            f" {loaded.encoding.digest[:16]}…, expected {encoding.digest[:16]}… of {encoding.name!r}, model.encoding"
        )
    try:
        model = build_model(_with_next_patch(loaded.model.config, next_patch), seed)
    except ConfigError as error:
        raise ConfigError(f"model.init_from: {init_from}: {error}") from None
    keys = model.load_state_dict(loaded.model.state_dict(), strict=False)
    assert not keys.unexpected_keys
    assert all(name.startswith("next_patch.") for name in keys.missing_keys)
    return model


def initial_config(
    config: ModelConfig | None, preset: str | None, init_from: Path | None, next_patch: NextPatchConfig | None
) -> ModelConfig:
    """The config of the model that :func:`initial_model` would give; arguments and errors are its own."""
    _check_choice(config, preset, init_from)
    if init_from is None:
        return _with_next_patch(config or get_preset(str(preset)), next_patch)
    found = load_checkpoint(init_from).model.config
    try:
        return _with_next_patch(found, next_patch)
    except ConfigError as error:
        raise ConfigError(f"model.init_from: {init_from}: {error}") from None


def _check_choice(config: ModelConfig | None, preset: str | None, init_from: Path | None) -> None:
    choices = {"config": config, f"preset {preset!r}": preset, f"init_from {init_from}": init_from}
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"model: found {' and '.join(given) or 'none'}, expected exactly one of config, preset and init_from"
        )


def _with_next_patch(config: ModelConfig, next_patch: NextPatchConfig | None) -> ModelConfig:
    if next_patch is None or next_patch == config.next_patch:
        return config
    if config.next_patch is not None:
        raise ConfigError(f"next_patch: found {config.next_patch}, expected none, or {next_patch} as model.next_patch")
    return dataclasses.replace(config, next_patch=next_patch)

"""A model in a folder: ``config.json``, ``encoding.json`` and ``model.safetensors``. Nothing in it is executed."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bytelm.encoding import Encoding, encoding_from_dict
from bytelm.errors import CheckpointError, ConfigError, EncodingError
from bytelm.hub.compact import four_bit_names, pack, unpack
from bytelm.hub.json_files import read_json, write_json
from bytelm.model.build import build_model, fill_buffers
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ModelConfig

FORMAT = "bytelm"
FORMAT_VERSION, COMPACT_VERSION, FOUR_BIT_VERSION = 2, 3, 4
"""Version 1, which is read as well, had a tensor for each layer of a fused one; version 3 has matrices in int8, version
4 rows of n-gram tables in four bits besides.
"""

_CONFIG, _ENCODING, _WEIGHTS = "config.json", "encoding.json", "model.safetensors"
_FUSED = {
    "attention.query_key_value": (0, ("attention.query", "attention.key", "attention.value")),
    "feedforward.gate_up": (0, ("feedforward.gate", "feedforward.up")),
    "up": (1, ("state", "prefix")),
}
"""Ends of the names of today's layers: the axis along which layers of version 1 are put together, and their names."""


@dataclass(frozen=True)
class Checkpoint:
    """A model that was read from a folder, and the encoding it was trained with."""

    model: ByteLM
    encoding: Encoding


def save_checkpoint(
    folder: Path,
    model: ByteLM,
    encoding: Encoding,
    provenance: dict[str, Any] | None = None,
    *,
    int8: bool = False,
    four_bit_tables: bool = False,
) -> None:
    """Write ``model`` and ``encoding`` to ``folder``, replacing a checkpoint that is there only when all is written.

    Args:
        folder: made with its parents where missing.
        provenance: plain values about the run, kept in ``config.json``.
        int8: whether matrices are rounded to int8, each row with a scale: a quarter of the bytes of float32.
        four_bit_tables: whether rows of n-gram tables are rounded to four bits; they have an even number of numbers,
            and the others are in int8.
    Raises:
        CheckpointError: the folder holds something else, or cannot be written.
    """
    four_bit = four_bit_names(model) if four_bit_tables else set[str]()
    version_written = FORMAT_VERSION
    if int8 or four_bit_tables:
        version_written = FOUR_BIT_VERSION if four_bit else COMPACT_VERSION
    config = {
        "format": FORMAT,
        "format_version": version_written,
        "bytelm_version": package_version(),
        "encoding": {"name": encoding.name, "digest": encoding.digest},
        "model": model.config.to_dict(),
        "provenance": provenance or {},
    }
    weights = model.state_dict() if version_written == FORMAT_VERSION else pack(model.state_dict(), four_bit)
    write_folder(folder, config, weights, {_ENCODING: encoding.to_dict()})


def package_version() -> str:
    """The version of this package, or ``unknown`` where it is not installed."""
    try:
        return version("bytelm")
    except PackageNotFoundError:
        return "unknown"


def write_folder(
    folder: Path, config: dict[str, Any], weights: Mapping[str, Tensor], others: Mapping[str, dict[str, Any] | str]
) -> None:
    """Write ``config.json``, weights by name, and other files of JSON or text by name; all or nothing.

    A folder that is there is replaced if its ``config.json`` has the same ``format``.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: found a file, expected a folder or nothing")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _CONFIG).is_file():
            raise CheckpointError(f"{folder}: holds files but no {_CONFIG}, expected a checkpoint or an empty folder")
        if (found := read_json(folder / _CONFIG).get("format")) != config["format"]:
            raise CheckpointError(
                f"{folder / _CONFIG}: format {found!r}, expected {config['format']!r} in a folder that is replaced"
            )
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            save_file(state, temporary / _WEIGHTS, {"format": "pt"})
            for name, value in {**others, _CONFIG: config}.items():
                if isinstance(value, str):
                    (temporary / name).write_text(value, encoding="utf-8")
                else:
                    write_json(temporary / name, value)
            temporary.chmod(0o755)
            _replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error.strerror or error}") from error


def load_checkpoint(folder: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a folder that :func:`save_checkpoint` wrote.

    Raises:
        CheckpointError: a file is missing, damaged, or of another version; the message names it.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder, expected one with {_CONFIG}, {_ENCODING} and {_WEIGHTS}")
    config = read_json(folder / _CONFIG)
    if config.get("format") != FORMAT:
        raise CheckpointError(f"{folder / _CONFIG}: format {config.get('format')!r}, expected {FORMAT!r}")
    if config.get("format_version") not in range(1, FOUR_BIT_VERSION + 1):
        raise CheckpointError(
            f"{folder / _CONFIG}: format version {config.get('format_version')!r}, expected 1 to {FOUR_BIT_VERSION}"
            f" (written by bytelm {config.get('bytelm_version', 'of unknown version')})"
        )
    try:
        model_config = ModelConfig.from_dict(config.get("model", {}), "model")
        encoding = encoding_from_dict(read_json(folder / _ENCODING))
    except (ConfigError, EncodingError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    named = config.get("encoding")
    digest = named.get("digest") if isinstance(named, dict) else None
    if encoding.digest != digest:
        raise CheckpointError(
            f"{folder / _ENCODING}: digest {encoding.digest[:16]}…, expected {str(digest)[:16]}… of {_CONFIG}"
        )
    _check_blocks(model_config, folder)
    model = build_model(model_config, device="meta")
    fill(model, folder, device, split=config["format_version"] == 1)
    fill_buffers(model, device)
    return Checkpoint(model.eval(), encoding)


def _check_blocks(config: ModelConfig, folder: Path) -> None:
    """Refuse a config that asks for more blocks than there can be, before memory is taken for them."""
    try:
        with safe_open(folder / _WEIGHTS, "pt") as file:
            count = len(file.keys())
    except (SafetensorError, OSError):
        return  # what is wrong is said when it is read
    if config.num_blocks > count:
        raise CheckpointError(
            f"{folder / _CONFIG}: model.num_blocks: found {config.num_blocks}, expected at most the {count} tensors of"
            f" {_WEIGHTS}"
        )


def fill(module: nn.Module, folder: Path, device: str | torch.device, *, split: bool = False) -> None:
    """Put the weights that :func:`write_folder` wrote into a module; every name, shape and type must agree.

    Args:
        module: its tensors are replaced, and may so be on the meta device.
        folder: has the weights.
        device: where they go.
        split: layers that are fused now are tensors of their own in the file.
    Raises:
        CheckpointError: the file is missing or damaged, or does not agree.
    """
    path = folder / _WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, expected the weights")
    try:
        state = unpack(load_file(path, device=str(device)))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error
    if split:
        state = _fused(state, module.state_dict(), path)
    put(module, state, path)


def put(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a module; every name, shape and type must agree.

    Args:
        module: its tensors are replaced, and may so be on the meta device.
        state: tensors by the names of the module.
        path: where they are from, for messages.
    Raises:
        CheckpointError: they do not agree.
    """
    expected = module.state_dict()
    float_type = next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float32)
    for name in sorted(expected.keys() | state.keys()):
        if name not in state:
            raise CheckpointError(f"{path}: parameter {name} is missing")
        if name not in expected:
            raise CheckpointError(f"{path}: parameter {name} is not part of the model that {_CONFIG} describes")
        if state[name].shape != expected[name].shape:
            found, wanted = list(state[name].shape), list(expected[name].shape)
            raise CheckpointError(f"{path}: parameter {name} has shape {found}, expected {wanted}")
        wanted_type = expected[name].dtype if not expected[name].is_floating_point() else float_type
        if state[name].dtype != wanted_type:
            raise CheckpointError(f"{path}: parameter {name} is {state[name].dtype}, expected {wanted_type}")
    module.load_state_dict(state, assign=True)


def _fused(state: dict[str, Tensor], expected: Iterable[str], path: Path) -> dict[str, Tensor]:
    """Tensors of version 1 under the names of today."""
    state = dict(state)
    for fused, (axis, parts) in _FUSED.items():
        for name in [name for name in expected if name.endswith(f".{fused}.weight")]:
            names = [f"{name.removesuffix(f'{fused}.weight')}{part}.weight" for part in parts]
            for part in names:
                if part not in state:
                    raise CheckpointError(f"{path}: parameter {part} is missing")
            state[name] = torch.cat([state.pop(part) for part in names], dim=axis)
    return state


def _replace(new: Path, old: Path) -> None:
    """Put folder ``new`` in the place of ``old``; the old one is removed last, and put back if ``new`` cannot be."""
    if not old.exists():
        os.rename(new, old)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{old.name}.old.", dir=old.parent))
    os.rename(old, aside / "old")
    try:
        os.rename(new, old)
    except OSError:
        os.rename(aside / "old", old)
        aside.rmdir()
        raise
    shutil.rmtree(aside)

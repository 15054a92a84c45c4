"""Draft heads in a folder: ``config.json``, which says of which frozen model, and ``model.safetensors``."""

from pathlib import Path
from typing import Any

import torch

from bytelm.errors import CheckpointError, ConfigError
from bytelm.hub.checkpoint import fill, package_version, write_folder
from bytelm.hub.json_files import read_config
from bytelm.model.build import add_draft_heads
from bytelm.model.byte_lm import ByteLM
from bytelm.model.ends import DraftHeadsConfig
from bytelm.model.layout import lay_out_for_decoding
from bytelm.nn.merger import TokenEmbedding

FORMAT, FORMAT_VERSION = "bytelm-draft-heads", 1

_SIZES = ("width", "num_blocks", "vocab_size")
_NUM_SAMPLES = 64
_TOLERANCE = 2**-7
"""Relative, twice the spacing of bfloat16: a model is itself in every float type."""


def save_draft_heads(folder: Path, model: ByteLM, provenance: dict[str, Any] | None = None) -> None:
    """Write the draft heads of ``model``, and what tells it from other models; of its own weights nothing.

    Args:
        folder: made with its parents where missing; draft heads that are there are replaced when all is written.
        model: has draft heads.
        provenance: plain values about the run, kept in ``config.json``.
    Raises:
        CheckpointError: the folder holds something else, or cannot be written.
    """
    assert model.draft_heads is not None
    assert model.config.draft_heads is not None
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "bytelm_version": package_version(),
        "draft_heads": model.config.draft_heads.to_dict(),
        "frozen": fingerprint(model),
        "provenance": provenance or {},
    }
    write_folder(folder, config, model.draft_heads.state_dict(), {})


def is_draft_heads(folder: Path) -> bool:
    """Whether :func:`save_draft_heads` wrote the folder.

    Raises:
        CheckpointError: no such folder, or its ``config.json`` cannot be read.
    """
    return read_config(folder).get("format") == FORMAT


def load_draft_heads(folder: Path, model: ByteLM) -> None:
    """Give ``model`` the draft heads in a folder that :func:`save_draft_heads` wrote, in its own float type and place.

    Targets that are made of the model from then on can draft with them.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind, or the heads are of another model.
    """
    config = read_config(folder)
    path = folder / "config.json"
    found = config.get("format"), config.get("format_version")
    if found != (FORMAT, FORMAT_VERSION):
        raise CheckpointError(f"{path}: format {found[0]!r}, version {found[1]!r}, expected {FORMAT!r}, 1")
    if not isinstance(model.merger, TokenEmbedding):
        raise CheckpointError(f"{path}: found draft heads for a model of tokens, expected none for one of bytes")
    check_fingerprint(config.get("frozen"), model, str(path))
    before = model.config, model.draft_heads
    try:
        chosen = DraftHeadsConfig.from_dict(config.get("draft_heads"), "draft_heads")
        draft_heads = add_draft_heads(model, chosen, "meta")
        fill(draft_heads, folder, model.device)
    except (ConfigError, CheckpointError) as error:
        model.config, model.draft_heads = before
        raise CheckpointError(str(error) if str(folder) in str(error) else f"{path}: {error}") from error
    draft_heads.to(next(model.parameters()).dtype).requires_grad_(False).eval()
    lay_out_for_decoding(draft_heads)


def fingerprint(model: ByteLM) -> dict[str, Any]:
    """Plain values that tell a model of tokens from others: sizes, and some elements of its embedding."""
    sizes = {name: getattr(model.config, name) for name in _SIZES}
    return {**sizes, "embedding": _samples(model)}


def check_fingerprint(found: Any, model: ByteLM, where: str) -> None:
    """Refuse draft heads of another model than the one with this fingerprint.

    Raises:
        CheckpointError: it differs, by more than rounding to another float type does; begins with ``where``.
    """
    if not isinstance(found, dict) or not {*_SIZES, "embedding"} <= found.keys():
        raise CheckpointError(f"{where}: found no fingerprint of the frozen model, expected one as 'frozen'")
    for name in _SIZES:
        if found[name] != getattr(model.config, name):
            raise CheckpointError(
                f"{where}: found draft heads of a model of {name} {found[name]},"
                f" expected those of this one, of {getattr(model.config, name)}"
            )
    theirs, ours = found["embedding"], _samples(model)
    if not isinstance(theirs, list) or [type(element) for element in theirs] != [float] * len(ours):
        raise CheckpointError(f"{where}: found no list of {len(ours)} numbers as frozen.embedding, expected one")
    for i, (their, our) in enumerate(zip(theirs, ours, strict=True)):
        if not abs(their - our) <= _TOLERANCE * abs(our) + 1e-6:
            raise CheckpointError(
                f"{where}: found draft heads of another model of these sizes: element {i} of its embedding is"
                f" {their:.6g}, expected {our:.6g}"
            )


def _samples(model: ByteLM) -> list[float]:
    """Elements of the embedding, evenly spread over it."""
    assert isinstance(model.merger, TokenEmbedding)
    table = model.merger.embedding.weight.detach()
    rows, width = model.config.vocab_size, model.config.width
    places = torch.linspace(0, rows * width - 1, _NUM_SAMPLES, dtype=torch.float64).round().long().to(table.device)
    return table[places // width, places % width].float().tolist()

"""JSON files of a model's folder."""

import json
from pathlib import Path
from typing import Any

from bytelm.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        CheckpointError: no such file, no JSON, or JSON of another kind.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, expected part of a checkpoint")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: found a {type(value).__name__}, expected a JSON object")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """The object in ``config.json`` of a model's folder.

    Raises:
        CheckpointError: no such folder or file, no JSON, or JSON of another kind.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder, expected one with config.json")
    return read_json(folder / "config.json")


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` as JSON, one field on a line."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

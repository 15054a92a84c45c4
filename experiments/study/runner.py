"""Run what is missing of a study; every finished cell is kept at once."""

import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bytelm.cli.console import finite
from bytelm.errors import ConfigError
from bytelm.hub.checkpoint import package_version

from .cells import plan_cell, train_cell
from .grid import Cell, Study
from .measures import MEASURES, Trained
from .texts import Workshop

_DIGITS = 6


def run_study(
    study: Study, size: str, only: Sequence[str], data: Path | None, out: Path, results: Path | None = None
) -> dict[str, Any]:
    """Train and measure the cells of a size that are not finished, and write the results of all that are.

    Args:
        study: to run.
        size: one of ``SIZES``.
        only: cells whose names hold one of these; all where empty.
        data: folder of the texts.
        out: where corpora, runs and finished cells are.
        results: folder of ``results.json``; by default the study's own.
    Returns:
        What ``results.json`` says of this size.
    Raises:
        ConfigError: ``only`` names no cell; a text is missing.
        BytelmError: a command failed.
    """
    cells = study.cells(size)
    chosen = [cell for cell in cells if not only or any(part in cell.name for part in only)]
    if not chosen:
        raise ConfigError(f"--only: found {', '.join(only)}, expected a part of {', '.join(c.name for c in cells)}")
    shop = Workshop(out / size, data, embedded=size == "smoke")
    folder = out / size / study.folder.name
    for number, cell in enumerate(chosen, 1):
        path = folder / cell.name / "cell.json"
        if path.is_file():
            continue
        began = time.perf_counter()
        found = _run_cell(study, cell, size, shop, path.parent)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(finite(found), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
        bits = found.get("best", {}).get("bits_per_char")
        shown = "" if bits is None else f", {bits:.3f} bits per character"
        print(f"{number} of {len(chosen)}: {cell.name}: {time.perf_counter() - began:.0f} s{shown}", flush=True)
        _write_results(study, size, cells, folder, results)
    return _write_results(study, size, cells, folder, results)


def _run_cell(study: Study, cell: Cell, size: str, shop: Workshop, folder: Path) -> dict[str, Any]:
    planned = plan_cell(cell, study.reference(size, cell), shop)
    settings = cell.settings["study"]
    found: dict[str, Any] = {
        "options": cell.options,
        "comparison": cell.comparison,
        "seed": cell.seed,
        "plan": planned.figures(settings["chars_per_window"]),
        "train": train_cell(cell, planned, folder),
    }
    trained = Trained(Path(found["train"].pop("model")), planned.text, settings["measure"])
    for name in study.config["measure"]:
        found |= MEASURES[name](trained)
    found["load_average"] = os.getloadavg()[0]
    return found


def _write_results(
    study: Study, size: str, cells: Sequence[Cell], folder: Path, results: Path | None
) -> dict[str, Any]:
    """All finished cells of a size into ``results.json``, beside those of other sizes."""
    path = (results or study.folder) / "results.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = before.get(size, {}).get("cells", {})
    found = {
        cell.name: _rounded(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else known[cell.name]
        for cell in cells
        if (file := folder / cell.name / "cell.json").is_file() or cell.name in known
    }
    entry = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "bytelm_version": package_version(),
        "planned": [cell.name for cell in cells],
        "cells": found,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**before, size: entry}, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return entry


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.{_DIGITS}g}")
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list():
            return [_rounded(item) for item in value]
        case _:
            return value

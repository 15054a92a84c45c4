"""Run what is missing of studies; every finished cell is kept at once."""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bytelm.cli.console import finite
from bytelm.errors import BytelmError, ConfigError
from bytelm.hub.checkpoint import package_version

from .cells import plan_cell, train_cell
from .figures import with_derived
from .grid import Cell, Study, merge
from .measures import MEASURES, Trained
from .texts import Workshop

_DIGITS = 6
_ON_CUDA = {"fit": {"trainer": {"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed"}}}


@dataclass(frozen=True)
class Place:
    """Where cells are run.

    Attributes:
        size: one of ``SIZES``.
        data: folder of the texts; None for the embedded text alone.
        out: where corpora, runs and finished cells are.
        device: ``cpu``, ``cuda``, or as the size has it where None. On ``cuda`` models are trained in bfloat16 and
            scored there; speeds are measured on the CPU.
    """

    size: str
    data: Path | None
    out: Path
    device: str | None = None

    def shop(self) -> Workshop:
        """Has the texts.

        Raises:
            ConfigError: there are none.
        """
        return Workshop(self.out / self.size, self.data, embedded=self.size == "smoke")

    def file(self, study: Study, cell: Cell) -> Path:
        """What is found of a cell."""
        return self.out / self.size / study.folder.name / cell.name / "cell.json"


@dataclass(frozen=True)
class Job:
    """A cell to run.

    Attributes:
        study: that it is of.
        cell: of that study.
    """

    study: Study
    cell: Cell

    @property
    def name(self) -> str:
        """Of the study and the cell."""
        return f"{self.study.number} {self.cell.name}"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        seconds: that it took.
        bits_per_char: under the law that is best.
        error: why there is nothing of it.
        late: whether that is because the time was over.
    """

    seconds: float
    bits_per_char: float | None = None
    error: str | None = None
    late: bool = False


Together = Callable[[Sequence[Job], Callable[[Job, Outcome], None]], None]
"""Runs cells, and tells of each when it has ended."""


def choose(studies: Sequence[Study], size: str, only: Sequence[str]) -> list[Job]:
    """The cells whose names hold one of these (all where empty): one seed of every study before the next seed of any.

    Raises:
        ConfigError: ``only`` names none.
    """
    jobs = [Job(study, cell) for study in studies for cell in study.cells(size)]
    chosen = [job for job in jobs if not only or any(part in job.cell.name for part in only)]
    if not chosen:
        names = ", ".join(job.cell.name for job in jobs)
        raise ConfigError(f"--only: found {', '.join(only)}, expected a part of {names}")
    return sorted(chosen, key=lambda job: job.cell.seed)


def run_studies(jobs: Sequence[Job], place: Place, together: Together, results: Path | None = None) -> list[str]:
    """Run the cells that are not finished, and write the results of all that are.

    Args:
        jobs: cells.
        place: where they are run.
        together: how.
        results: folder of folders with ``results.json``; by default the studies' own.
    Returns:
        Of each cell that failed, its name and why.
    """
    place.shop()  # that there are texts is asked before there are processes
    missing = [job for job in jobs if not place.file(job.study, job.cell).is_file()]
    failed = []

    def tell(job: Job, outcome: Outcome) -> None:
        if outcome.late:
            print(f"{job.name}: ended after {outcome.seconds:.0f} s: the time is over", flush=True)
            return
        if outcome.error is not None:
            failed.append(f"{job.name}: {outcome.error}")
            print(f"{job.name}: failed: {outcome.error}", flush=True)
            return
        bits = outcome.bits_per_char
        shown = "" if bits is None else f", {bits:.3f} bits per character"
        print(f"{missing.index(job) + 1} of {len(missing)}: {job.name}: {outcome.seconds:.0f} s{shown}", flush=True)
        write_results(job.study, place, results)

    together(missing, tell)
    for study in {job.study.number: job.study for job in jobs}.values():
        write_results(study, place, results)
    return failed


def run_here(place: Place) -> Together:
    """One cell after the other, in this process."""

    def run(jobs: Sequence[Job], tell: Callable[[Job, Outcome], None]) -> None:
        shop = place.shop()
        for job in jobs:
            tell(job, run_cell(job, place, shop))

    return run


def run_cell(job: Job, place: Place, shop: Workshop) -> Outcome:
    """Train and measure one cell, and keep what was found; a user's error is an outcome."""
    began, path = time.perf_counter(), place.file(job.study, job.cell)
    try:
        found = _train_and_measure(job, place, shop, path.parent)
    except BytelmError as error:
        return Outcome(time.perf_counter() - began, error=" ".join(str(error).split()))
    _write(path, found)
    return Outcome(time.perf_counter() - began, found.get("best", {}).get("bits_per_char"))


def _train_and_measure(job: Job, place: Place, shop: Workshop, folder: Path) -> dict[str, Any]:
    cell = on_device(job.cell, place)
    planned = plan_cell(cell, job.study.reference(place.size, job.cell), shop)
    settings = cell.settings["study"]
    found: dict[str, Any] = {
        "options": cell.options,
        "comparison": cell.comparison,
        "seed": cell.seed,
        "plan": planned.figures(settings["chars_per_window"]),
        "train": train_cell(cell, planned, shop),
    }
    device = "cuda" if cell.settings["fit"]["trainer"]["accelerator"] == "gpu" else "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    trained = Trained(Path(found["train"].pop("model")), folder, planned.text, settings["measure"], device)
    for name in job.study.config["measure"]:
        found |= MEASURES[name](trained)
    found["load_average"] = os.getloadavg()[0]
    return found


def on_device(cell: Cell, place: Place) -> Cell:
    """The cell as it is trained there."""
    return replace(cell, settings=merge(cell.settings, _ON_CUDA)) if place.device == "cuda" else cell


def _write(path: Path, found: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(finite(found), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def write_results(
    study: Study, place: Place, results: Path | None = None, latency: dict[str, Any] | None = None
) -> dict[str, Any]:
    """All finished cells of a size into ``results.json``, beside those of other sizes.

    Args:
        study: whose cells.
        place: where they were run.
        results: folder of the study's folder; by default where studies are.
        latency: seconds of the forwards of all models; by default what the file has.
    Returns:
        What the file says of this size.
    """
    path = study.results_file if results is None else results / study.folder.name / "results.json"
    size, cells = place.size, study.cells(place.size)
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = before.get(size, {}).get("cells", {})
    found = {
        cell.name: _rounded(with_derived(_read(file) if file.is_file() else known[cell.name]))
        for cell in cells
        if (file := place.file(study, cell)).is_file() or cell.name in known
    }
    entry = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        },
        "bytelm_version": package_version(),
        "planned": [cell.name for cell in cells],
        "cells": found,
    }
    if latency is None:
        latency = before.get(size, {}).get("latency")
    if latency is not None:
        entry["latency"] = _rounded(latency)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**before, size: entry}, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return entry


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


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

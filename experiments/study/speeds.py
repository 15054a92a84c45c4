"""Seconds of a forward of every model of a study, measured in turns in one run."""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bytelm as package
from bytelm.benchmarks.timing import num_threads, take_turns
from bytelm.hub import LanguageModel

from .cells import Planned, is_trained, plan_cell, train_cell
from .grid import Cell, Study
from .measures import Trained
from .runner import Place, on_device, write_results
from .texts import Workshop

TURNS = 9
"""Of every model and law; the median counts."""


@dataclass(frozen=True)
class _Timed:
    """A model, whatever it was trained on and for: all of its cells share its speed."""

    cell: Cell
    planned: Planned
    groups: tuple[str, ...]


def measure_speeds(study: Study, place: Place, results: Path | None = None) -> dict[str, Any]:
    """Time plain greedy decoding of every model that has results, on one thread of the CPU, and keep it in the results.

    All models are in memory and take turns, so that a machine that drifts is fair to all. Each continues the same
    prompts by as many characters of the corpus. A model is the one of its cells that was trained longest and is still
    there; where none is, it is trained for one step: what a forward costs depends on its shape, hardly on its weights.

    Args:
        study: whose results are read, and written.
        place: where its cells were run.
        results: as for :func:`~experiments.study.runner.write_results`.
    Returns:
        ``seconds_per_forward`` by group and law, and how they were measured.
    """
    known = write_results(study, place, results)["cells"]
    cells = [cell for cell in study.cells(place.size) if cell.name in known]
    shop = place.shop()
    models = _models(study, place, shop, cells, known)
    found: dict[str, dict[str, float]] = {}
    began = os.getloadavg()[0]
    with num_threads(1):
        cases = {
            (model.groups, law): _decoding(lm, law, prompts, model.planned)
            for model in models
            for lm, prompts in [_load(model, place, shop)]
            for law in lm.laws
        }
        for case in cases.values():
            case()
        for (names, law), seconds in take_turns(cases, TURNS).items():
            for name in names:
                found.setdefault(name, {})[law] = statistics.median(seconds)
    latency = {
        "date": datetime.now(UTC).date().isoformat(),
        "turns": TURNS,
        "models": len(models),
        "load_average": [began, os.getloadavg()[0]],
        "seconds_per_forward": dict(sorted(found.items())),
    }
    write_results(study, place, results, latency)
    return latency


def _models(study: Study, place: Place, shop: Workshop, cells: list[Cell], known: dict[str, Any]) -> list[_Timed]:
    """One for each model of the cells, with the cell that was trained longest first among those that still are."""
    found: dict[str, list[tuple[Cell, Planned]]] = {}
    for cell in (on_device(cell, place) for cell in cells):
        planned = plan_cell(cell, study.reference(place.size, cell), shop, known[cell.name]["plan"])
        key = json.dumps([planned.model.to_dict(), planned.symbols.fit["model"]], sort_keys=True)
        found.setdefault(key, []).append((cell, planned))
    models = []
    for sharing in found.values():
        trained = [one for one in sharing if is_trained(*one, shop)]
        cell, planned = max(trained, key=lambda one: one[1].steps) if trained else _after_one_step(*sharing[0])
        models.append(_Timed(cell, planned, tuple(dict.fromkeys(one.group for one, _ in sharing))))
    return models


def _after_one_step(cell: Cell, planned: Planned) -> tuple[Cell, Planned]:
    return cell, replace(planned, steps=1)


def _load(model: _Timed, place: Place, shop: Workshop) -> tuple[LanguageModel, list[str]]:
    folder = Path(train_cell(model.cell, model.planned, shop)["model"])
    amounts = model.cell.settings["study"]["measure"]
    trained = Trained(folder, place.out, model.planned.text, amounts)
    return package.load(folder, "cpu"), trained.prompts(amounts["prompts"])


def _decoding(lm: LanguageModel, law: str, prompts: list[str], planned: Planned) -> Callable[[], float]:
    """Seconds of a forward, prompts included, when each is continued by as many symbols as a text of it has."""
    symbols = round(4 * max(map(len, prompts)) * planned.symbols.per_char)

    def run() -> float:
        began, forwards = time.perf_counter(), 0
        for prompt in prompts:
            forwards += lm.generate([prompt], max_new_tokens=symbols, law=law, draft="none").stats.forwards
        return (time.perf_counter() - began) / forwards

    return run

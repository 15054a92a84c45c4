"""One cell: what it trains, for how long, and the run itself."""

import copy
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import bytelm as package
from bytelm.benchmarks.equal_cost import (
    operations_per_character,
    seconds_per_step,
    training_compute,
    with_operations,
)
from bytelm.benchmarks.operations import body_operations_per_symbol
from bytelm.benchmarks.training_plan import table_parameters
from bytelm.hub.shipped import shipped_folder
from bytelm.model.config import ModelConfig, NgramConfig
from bytelm.model.scaling import at_width
from bytelm.model.twins import next_byte_twin, token_twin

from .commands import bytelm
from .grid import Cell, merge
from .texts import Symbols, Text, Workshop

_CONTEXT_CHARACTERS = 700
"""Characters that every model's context holds, of four symbols each: windows with their contexts, and prompts."""


@dataclass(frozen=True)
class Planned:
    """A cell with all that is computed of it before it is trained.

    Attributes:
        text: that it reads.
        symbols: what it reads the text as.
        model: its configuration.
        window: symbols of a sample.
        batch_size: samples of a step.
        steps: of the optimiser.
        step_s: seconds of a step that was measured to plan them; None where steps are given.
    """

    text: Text
    symbols: Symbols
    model: ModelConfig
    window: int
    batch_size: int
    steps: int
    step_s: float | None

    def figures(self, chars_before: float) -> dict[str, Any]:
        """What is known of a cell without training it."""
        model, per_char, read = self.model, self.symbols.per_char, self.steps * self.batch_size * self.window
        body = body_operations_per_symbol(model, model.laws[0], chars_before * per_char)
        return {
            "width": model.width,
            "patch": model.patch,
            "parameters": model.num_parameters(),
            "body_parameters": model.num_body_parameters(),
            "table_parameters": table_parameters(model),
            "symbols_per_char": per_char,
            "window": self.window,
            "steps": self.steps,
            "planned_step_s": self.step_s,
            "characters_read": read / per_char,
            "operations_per_char": operations_per_character(model, per_char, chars_before),
            "body_operations_per_char": body * per_char,
            "training_operations": training_compute(model, self.window, read),
        }


def plan_cell(
    cell: Cell, reference: dict[str, Any] | None, shop: Workshop, before: dict[str, Any] | None = None
) -> Planned:
    """The model, window and steps of a cell.

    Args:
        cell: as its study has it.
        reference: settings of the cell whose operations per character count, where the comparison asks for them.
        shop: has texts, corpora and tokenizers.
        before: the figures of an earlier plan, whose steps are kept; they may have been measured.
    """
    study = cell.settings["study"]
    text = shop.text(study["text"])
    symbols = shop.symbols(text, study)
    model, chars = model_of(cell.settings, symbols), study["chars_per_window"]
    if cell.comparison == "operations":
        assert reference is not None
        model = with_operations(
            model, symbols.per_char, chars, _operations(reference, shop), study.get("width_step", 8)
        )
    window = max(1, round(chars * symbols.per_char / model.patch)) * model.patch
    if study.get("ready"):
        return Planned(text, symbols, model, window, study["batch_size"], 0, None)
    batch_size, steps, step_s = study["batch_size"], round(study["steps"] * study.get("compute", 1)), None
    if before is not None:
        steps, step_s = before["steps"], before["planned_step_s"]
    elif cell.comparison == "time":
        device = "cuda" if cell.settings["fit"]["trainer"]["accelerator"] == "gpu" else "cpu"
        step_s = seconds_per_step(model, window, batch_size, device=device)
        steps = max(1, round(study["seconds"] / step_s))
    return Planned(text, symbols, model, window, batch_size, steps, step_s)


def model_of(settings: dict[str, Any], symbols: Symbols) -> ModelConfig:
    """The model that settings describe: as configured, or the twin of it that they ask for; or one of the package."""
    study = settings["study"]
    if ready := study.get("ready"):
        return package.load(ready, "cpu").config
    given = settings["fit"]["model"]["config"]
    patch = given.get("patch", 4)
    config = ModelConfig.from_dict({**given, "context": -(-_CONTEXT_CHARACTERS * 4 // patch) * patch}, "model.config")
    config = at_width(config, round(config.width * study.get("wider", 1)))
    if symbols.tokens is not None:
        tables = [None if study.get(name) is None else NgramConfig.from_dict(study[name]) for name in _TWIN_TABLES]
        twins = {"tables": tables[0], "head_tables": tables[1], "head_inner": study.get("token_head_inner")}
        return token_twin(config, symbols.tokens, config.context, **twins)
    return next_byte_twin(config) if study.get("next_byte") else config


_TWIN_TABLES = ("token_tables", "token_head_tables")


def train_cell(cell: Cell, planned: Planned, shop: Workshop) -> dict[str, Any]:
    """Train by ``bytelm fit``, or find what a cell with the same settings, of any study, has trained.

    Args:
        cell: as its study has it.
        planned: what is trained.
        shop: where the run is kept.
    Returns:
        The folder of the model, steps, and the time they took; none for a model of the package.
    """
    if ready := cell.settings["study"].get("ready"):
        none = dict.fromkeys(("seconds", "processor_s", "processor_s_per_step"), 0.0)
        return {"model": str(shipped_folder(ready)), "steps": 0, **none}
    folder = _run_folder(cell, planned, shop)
    with shop.alone(folder.name):
        path = folder / "trained.json"
        if not path.is_file():
            found = json.dumps(_train(_settings(cell, planned), folder), indent=1)
            partial = path.with_suffix(".partial")
            partial.write_text(found + "\n", encoding="utf-8")
            partial.replace(path)
        trained: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return trained


def is_trained(cell: Cell, planned: Planned, shop: Workshop) -> bool:
    """Whether :func:`train_cell` has nothing to do."""
    return bool(cell.settings["study"].get("ready")) or (_run_folder(cell, planned, shop) / "trained.json").is_file()


def _run_folder(cell: Cell, planned: Planned, shop: Workshop) -> Path:
    settings = json.dumps(_settings(cell, planned), sort_keys=True)
    return shop.out / "trained" / hashlib.sha256(settings.encode()).hexdigest()[:16]


def _settings(cell: Cell, planned: Planned) -> dict[str, Any]:
    """What ``bytelm fit`` is given, but for its folder."""
    settings = copy.deepcopy(merge(cell.settings["fit"], planned.symbols.fit))
    settings["seed_everything"] = cell.seed
    settings["trainer"] |= {"max_steps": planned.steps}
    settings["model"] |= {"config": planned.model.to_dict(), "seed": cell.seed}
    settings["data"] |= {
        "window": planned.window,
        "batch_size": planned.batch_size,
        "windows_per_epoch": planned.steps * planned.batch_size,
        "patch": planned.model.patch,
        "seed": cell.seed,
    }
    if (trained := cell.settings["study"].get("heads")) is not None:
        untrained = planned.model.patch - trained
        settings["model"]["loss"] = {"head_weights": [1.0] * trained + [0.0] * untrained}
    return settings


def _train(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    settings = merge(settings, {"trainer": {"default_root_dir": str(folder)}})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), encoding="utf-8")
    began, began_s = time.process_time(), time.perf_counter()
    found = bytelm("fit", "--config", path)
    processor_s = time.process_time() - began
    return {
        "model": found["model"],
        "steps": found["step"],
        "seconds": time.perf_counter() - began_s,
        "processor_s": processor_s,
        "processor_s_per_step": processor_s / found["step"],
    }


def _operations(reference: dict[str, Any], shop: Workshop) -> float:
    study = reference["study"]
    symbols = shop.symbols(shop.text(study["text"]), study)
    return operations_per_character(model_of(reference, symbols), symbols.per_char, study["chars_per_window"])

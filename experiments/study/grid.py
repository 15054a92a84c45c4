"""A study's YAML, and the cells that its axes, comparisons and seeds make."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bytelm.errors import ConfigError

SIZES = ("smoke", "cpu", "gpu")
STUDIES = Path(__file__).parents[1] / "studies"
_BASE = STUDIES / "base.yaml"
_FIELDS = {"title", "learned", "axes", "leave_out", "comparisons", "reference", "measure", "plots", "columns", "all"}


@dataclass(frozen=True)
class Cell:
    """One model that is trained and measured.

    Attributes:
        comparison: ``plain``: as configured; ``operations``: at the width that needs the reference's operations per
            character; ``time``: for as many steps as fit the size's seconds.
        options: of each axis, the one that this cell has.
        seed: of weights and data.
        settings: ``fit``: for ``bytelm fit``; ``study``: for what stands around it.
    """

    comparison: str
    options: dict[str, str]
    seed: int
    settings: dict[str, Any]

    @property
    def group(self) -> str:
        """The name without the seed."""
        return f"{self.comparison}/{'+'.join(self.options.values())}"

    @property
    def name(self) -> str:
        """Says what it is, and stays the same when other cells come and go."""
        return f"{self.group}/seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """A folder with ``study.yaml``.

    Attributes:
        folder: of the study.
        config: what the file says.
        base: what all studies share.
    """

    folder: Path
    config: dict[str, Any]
    base: dict[str, Any]

    @property
    def number(self) -> str:
        """Two digits."""
        return self.folder.name.partition("_")[0]

    @property
    def title(self) -> str:
        """In a few words."""
        return str(self.config["title"])

    @property
    def results_file(self) -> Path:
        """What was found, by size."""
        return self.folder / "results.json"

    def results(self) -> dict[str, Any]:
        """What was found, by size; empty before the first run."""
        if not self.results_file.is_file():
            return {}
        found: dict[str, Any] = json.loads(self.results_file.read_text(encoding="utf-8"))
        return found

    def state(self) -> str:
        """How many cells of each size were run."""
        results = self.results()
        return ", ".join(
            f"{size} {len(results.get(size, {}).get('cells', {}))} of {len(self.cells(size))}"
            for size in SIZES
            if size != "smoke"
        )

    def settings(self, size: str) -> dict[str, Any]:
        """The settings that all cells of a size share."""
        merged: dict[str, Any] = {}
        for part in (self.base, self.base["sizes"][size], self.config.get("all"), self._size(size)):
            merged = merge(merged, {key: value for key, value in (part or {}).items() if key in ("fit", "study")})
        return merged

    def cells(self, size: str) -> list[Cell]:
        """All cells of a size, those of the first seed first."""
        axes, shared, sized = self.config["axes"], self.settings(size), self._size(size)
        kept = sized.get("axes", {})
        names = [[name for name in axes[axis] if name in kept.get(axis, axes[axis])] for axis in axes]
        comparisons = sized.get("comparisons", self.config.get("comparisons", ["plain"]))
        left_out = [*self.config.get("leave_out", []), *sized.get("leave_out", [])]
        found = []
        for seed in shared["study"]["seeds"]:
            for comparison, *chosen in itertools.product(comparisons, *names):
                options = dict(zip(axes, chosen, strict=True))
                described = {**options, "comparison": comparison, "seed": seed}
                if any(_describes(one, described) for one in left_out):
                    continue
                settings = shared
                for axis, name in options.items():
                    settings = merge(settings, axes[axis][name] or {})
                found.append(Cell(comparison, options, seed, settings))
        return found

    def reference(self, size: str, cell: Cell) -> dict[str, Any] | None:
        """The settings of the cell whose operations per character a cell is given; its own options where not named."""
        wanted = self.config.get("reference")
        if wanted is None:
            return None
        settings = self.settings(size)
        for axis, name in (cell.options | wanted).items():
            settings = merge(settings, self.config["axes"][axis][name] or {})
        return settings

    def _size(self, size: str) -> dict[str, Any]:
        return (self.config.get("sizes") or {}).get(size) or {}


def _describes(pattern: Mapping[str, Any], cell: Mapping[str, Any]) -> bool:
    """Whether a cell has all that a pattern names: a value, a list of those that will do, or ``not`` one or a list."""

    def fits(value: Any, wanted: Any) -> bool:
        if isinstance(wanted, Mapping):
            return not fits(value, wanted["not"])
        return value in (wanted if isinstance(wanted, list) else [wanted])

    return all(fits(cell.get(name), wanted) for name, wanted in pattern.items())


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings put together, the second one's values before the first one's; one of None takes a value away."""
    merged = dict(first)
    for key, value in second.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            before = merged.get(key)
            merged[key] = merge(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def find_studies() -> list[Study]:
    """All of them, in order."""
    return [_read(path.parent) for path in sorted(STUDIES.glob("*/study.yaml"))]


def read_study(number: str) -> Study:
    """The study of this number.

    Raises:
        ConfigError: there is none, or its file has an unknown field.
    """
    folders = sorted(path.parent for path in STUDIES.glob("*/study.yaml"))
    for folder in folders:
        if number in (folder.name, folder.name.partition("_")[0]):
            return _read(folder)
    known = ", ".join(folder.name.partition("_")[0] for folder in folders)
    raise ConfigError(f"study: found {number!r}, expected one of {known}")


def _read(folder: Path) -> Study:
    config = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    _check(folder, config.keys(), _FIELDS | {"sizes"})
    return Study(folder, config, yaml.safe_load(_BASE.read_text(encoding="utf-8")))


def _check(folder: Path, names: Sequence[str] | Any, known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{folder / 'study.yaml'}: {name}: unknown field, expected one of {', '.join(sorted(known))}"
            )

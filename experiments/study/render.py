"""From ``results.json`` to a README: no figure in it is typed by hand."""

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from .figures import groups, lookup, means, points
from .grid import STUDIES, Study, find_studies
from .pictures import draw

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NOT_RUN = "(not run)"
_SAME = 1e-5
"""Half of a range over seeds, as a share of the mean: costs differ by less, for where texts and files end."""
_SELDOM = "·"
TEMPLATE, README = "README.in.md", "README.md"


def render_study(study: Study, *, pictures: bool = True) -> str:
    """Write ``README.md`` of a study from ``README.in.md`` and ``results.json``, and its pictures.

    Args:
        study: whose folder is written to.
        pictures: whether they are drawn, too.
    Returns:
        The text.
    """
    text = readme_of(study)
    (study.folder / README).write_text(text, encoding="utf-8")
    if pictures:
        size, results = _newest(study)
        for plot in study.config.get("plots", []):
            draw(study.folder / plot["file"], means(results), plot, f"{study.title} ({size})")
    return text


def readme_of(study: Study) -> str:
    """The README that the template and the results make."""
    return fill((study.folder / TEMPLATE).read_text(encoding="utf-8"), study)


def render_index() -> str:
    """Write the index of all studies."""
    text = index_text()
    (STUDIES / README).write_text(text, encoding="utf-8")
    return text


def index_text() -> str:
    """The index that the template and all results make."""
    rows = [
        f"| [{study.number}]({study.folder.name}/README.md) | {study.title} | {study.state()} | {_learned(study)} |"
        for study in find_studies()
    ]
    table = "\n".join(["| | study | cells run | what was learned |", "|---|---|---|---|", *rows])
    return (STUDIES / TEMPLATE).read_text(encoding="utf-8").replace("{{studies}}", table)


def _learned(study: Study) -> str:
    """In a line what a study found; a dash before anything of it was run."""
    _, results = _newest(study)
    return fill(study.config["learned"], study) if results["cells"] and "learned" in study.config else "–"


def fill(template: str, study: Study) -> str:
    """A template with what its placeholders ask for.

    ``{{state}}``; ``{{table}}``, of ``columns``; ``{{picture | FILE | WORDS}}``, one of ``plots``;
    ``{{value | GROUP | FIELD | FORMAT}}``, of the mean over seeds;
    ``{{spread | GROUP | FIELD | FORMAT}}``, with half of their range behind it where they differ;
    ``{{ratio | GROUP | GROUP | FIELD | FORMAT}}``; ``{{difference | GROUP | GROUP | FIELD | FORMAT}}``, the first less
    the second; ``{{least | PREFIX | FIELD | FORMAT}}``, the group that is lowest, and its figure;
    ``{{undercut | GLOB | GLOB | FIELD | FIELD}}``, how many groups of the second kind have one of the first that is no
    higher in the first field (no lower, after ``-``) and lower in the second, and the others by name; of ``laws:*``
    every law is a place of a group, each of which must have one below it;
    ``{{keyed | FIELD | FIELD | FORMAT}}``, a table of the keys of a mapping against groups;
    ``{{lists | FIELD | FIELD | FORMAT}}``, of its lists, and after ``| FIELD | LEAST`` only those of their numbers that
    were counted so often, others as a dot. A FIELD is names with colons between them.
    """
    size, results = _newest(study)
    found = means(results)
    answers: dict[str, Callable[..., str]] = {
        "state": lambda: _state(study, size, results),
        "table": lambda: _table(study, results),
        "picture": lambda file, words: f"![{words}]({file})" if found else "",
        "value": lambda group, field, form=".3f": _shown(lookup(found.get(group), field), form),
        "spread": lambda group, field, form=".3f": _over_seeds(results, group, field, form),
        "ratio": lambda one, other, field, form=".2f": _ratio(found, one, other, field, form),
        "difference": lambda one, other, field, form="+.3f": _difference(found, one, other, field, form),
        "undercut": lambda one, other, cost, field: _undercut(found, one, other, cost, field),
        "least": lambda prefix, field, form=".3f": _least(found, prefix, field, form),
        "keyed": lambda field, inner, form=".3f": _keyed(found, field, inner, form),
        "lists": lambda field, inner, form=".2f", *counted: _lists(found, field, inner, form, *counted),
    }

    def answer(match: re.Match[str]) -> str:
        name, *args = (" ".join(part.split()) for part in match[1].split("|"))
        return answers[name](*args)

    return _PLACEHOLDER.sub(answer, template)


def _newest(study: Study) -> tuple[str, dict[str, Any]]:
    """The largest size that was run, and what was found."""
    results = study.results()
    for size in ("gpu", "cpu"):
        if results.get(size, {}).get("cells"):
            return size, results[size]
    return "cpu", {"cells": {}, "planned": [cell.name for cell in study.cells("cpu")]}


def _state(study: Study, size: str, results: dict[str, Any]) -> str:
    done, planned = results["cells"], results["planned"]
    command = f"python -m experiments.study run {study.number} --size"
    lines = [f"Size `{size}`: {len(done)} of {len(planned)} cells were run (`{command} {size} --data DIR`)"]
    if done:
        lines[0] += f", the last one on {results['date']}."
        seconds = sum(cell["train"]["processor_s"] for cell in done.values())
        lines.append(f"Training took {seconds / 60:.0f} minutes of one processor. {_how_fast(study, results)}")
    missing = sorted({name.rpartition("/")[0] for name in planned} - set(groups(results)))
    if missing:
        lines.append(f"Not run: {', '.join(f'`{name}`' for name in missing)}.")
    others = [name for name in ("cpu", "gpu") if name != size and not study.results().get(name, {}).get("cells")]
    lines += [f"Size `{name}`: configured, not run (`{command} {name} --data DIR`)." for name in others]
    return "\n".join(lines)


def _how_fast(study: Study, results: dict[str, Any]) -> str:
    """How characters per second were measured, or that they were not."""
    if latency := results.get("latency"):
        before, after = latency["load_average"]
        return (
            f"Forwards of all {latency['models']} models were timed in one run, in {latency['turns']} turns, on"
            f" {latency['date']} (`python -m experiments.study speeds {study.number} --data DIR`; load average"
            f" {before:.1f} before, {after:.1f} after)."
        )
    loads = [cell["load_average"] for cell in results["cells"].values()]
    return (
        f"Other work ran beside it (load average {min(loads):.1f} to {max(loads):.1f}); characters per second were not"
        " measured."
    )


def _table(study: Study, results: dict[str, Any]) -> str:
    columns = study.config["columns"]
    rows = []
    for group, cells in groups(results).items():
        figures = [_spread([lookup(cell, column[1]) for cell in cells], *column[2:]) for column in columns]
        rows.append([group, *figures])
    return _markdown(["cell", *(column[0] for column in columns)], rows)


def _spread(values: list[Any], form: str = ".3f", scale: float = 1.0) -> str:
    """The mean over seeds, and half of the range where they differ."""
    numbers = [value for value in values if value is not None]
    if not numbers or isinstance(numbers[0], str):
        return numbers[0] if numbers else "–"
    numbers = [number * scale for number in numbers]
    mean, half = sum(numbers) / len(numbers), (max(numbers) - min(numbers)) / 2
    return f"{mean:{form}}" + (f" ± {half:{form.lstrip('+')}}" if half > _SAME * abs(mean) else "")


def _over_seeds(results: dict[str, Any], group: str, field: str, form: str) -> str:
    cells = groups(results).get(group, [])
    values = [lookup(cell, field) for cell in cells]
    return _NOT_RUN if not values or None in values else _spread(values, form)


def _ratio(cells: dict[str, Any], one: str, other: str, field: str, form: str) -> str:
    values = [lookup(cells.get(group), field) for group in (one, other)]
    return _NOT_RUN if None in values else format(values[0] / values[1], form)


def _difference(cells: dict[str, Any], one: str, other: str, field: str, form: str) -> str:
    values = [lookup(cells.get(group), field) for group in (one, other)]
    return _NOT_RUN if None in values else format(values[0] - values[1], form)


def _undercut(cells: dict[str, Any], one: str, other: str, cost: str, field: str) -> str:
    sign = -1 if cost.startswith("-") else 1

    def places(pattern: str) -> dict[str, list[tuple[float, float]]]:
        chosen = {group: mean for group, mean in cells.items() if fnmatchcase(group, pattern)}
        found = {group: points(mean, cost.removeprefix("-"), field).values() for group, mean in chosen.items()}
        return {group: [(sign * x, y) for x, y in ofs] for group, ofs in found.items() if ofs}

    ours, theirs = places(one), places(other)
    if not ours or not theirs:
        return _NOT_RUN
    below = [point for ofs in ours.values() for point in ofs]
    kept = [group for group, ofs in theirs.items() if not all(_has_below(point, below) for point in ofs)]
    named = f", not {', '.join(f'`{group}`' for group in kept)}" if kept else ""
    return f"{len(theirs) - len(kept)} of {len(theirs)}{named}"


def _has_below(point: tuple[float, float], others: list[tuple[float, float]]) -> bool:
    """Whether one of the others costs no more and is lower."""
    return any(x <= point[0] and y < point[1] for x, y in others)


def _least(cells: dict[str, Any], prefix: str, field: str, form: str) -> str:
    found = {group: lookup(mean, field) for group, mean in cells.items() if group.startswith(prefix)}
    known = {group: value for group, value in found.items() if value is not None}
    if not known:
        return _NOT_RUN
    group = min(known, key=lambda name: known[name])
    return f"`{group}` ({known[group]:{form}})"


def _keyed(cells: dict[str, Any], field: str, inner: str, form: str) -> str:
    found = {group: lookup(mean, field) or {} for group, mean in cells.items()}
    keys = list(dict.fromkeys(key for mapping in found.values() for key in mapping))
    rows = [[key, *(_shown(lookup(mapping.get(key), inner), form, "–") for mapping in found.values())] for key in keys]
    return _markdown(["", *found], rows)


def _lists(
    cells: dict[str, Any], field: str, inner: str, form: str, counts: str | None = None, least: str = "0"
) -> str:
    rows, longest = [], 0
    for group, cell in cells.items():
        for key, mapping in (lookup(cell, field) or {}).items():
            values = (lookup(mapping, inner) if inner else mapping) or []
            counted = lookup(mapping, counts) if counts else [float("inf")] * len(values)
            shown = [
                _shown(value, form, _SELDOM) if count >= float(least) else _SELDOM
                for value, count in zip(values, counted, strict=True)
            ]
            longest = max(longest, len(values))
            rows.append([group, key, *shown])
    filled = [[*row, *[""] * (longest + 2 - len(row))] for row in rows]
    return _markdown(["cell", "", *(str(i + 1) for i in range(longest))], filled)


def _shown(value: Any, form: str, missing: str = _NOT_RUN) -> str:
    if value is None:
        return missing
    return value if isinstance(value, str) else format(value, form)


def _markdown(header: Iterable[str], rows: list[list[str]]) -> str:
    header = list(header)
    if not rows:
        return "Nothing was run."
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

"""Figures of cells: found by name, and as means over seeds."""

from typing import Any


def lookup(value: Any, field: str) -> Any:
    """What stands at ``a:b:c`` in nested mappings and lists; None where there is nothing."""
    for name in field.split(":"):
        match value:
            case dict():
                value = value.get(name)
            case list():
                value = value[int(name)] if int(name) < len(value) else None
            case _:
                return None
    return value


def points(cell: dict[str, Any], x: str, y: str) -> dict[str, tuple[float, float]]:
    """Where a cell stands in two figures: by law, where fields say ``laws:*``, else once, under an empty name.

    What does not depend on the law may stand beside what does; a law of which one of the two is not known is left out.
    """
    laws = list(cell.get("laws", {})) if "*" in x + y else [""]
    found = {law: (lookup(cell, x.replace("*", law)), lookup(cell, y.replace("*", law))) for law in laws}
    return {law: point for law, point in found.items() if None not in point}


def with_derived(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell with what follows from what was measured, for every law, the best and the default one.

    ``body_operations_per_char``: the plan counts them for the default law; a law has them at every position it needs.
    ``text_chars_per_forward``: models that have learned little write other text than they read, of controls or of the
    longest tokens. So these are the characters that the symbols of a forward are in the text of the corpus.
    """
    if not cell.get("default"):
        return cell
    return _with_figures_of_laws(cell, {law: _derived(cell, law, figures) for law, figures in cell["laws"].items()})


def with_speed(cell: dict[str, Any], seconds_per_forward: dict[str, float]) -> dict[str, Any]:
    """A cell with ``text_chars_per_second`` of laws whose forward was timed: characters of text over its seconds."""
    if not cell.get("default"):
        return cell
    found = {
        law: {"text_chars_per_second": cell["laws"][law]["text_chars_per_forward"] / seconds}
        for law, seconds in seconds_per_forward.items()
    }
    return _with_figures_of_laws(cell, found)


def _with_figures_of_laws(cell: dict[str, Any], more: dict[str, dict[str, float]]) -> dict[str, Any]:
    laws = {law: {**figures, **more.get(law, {})} for law, figures in cell["laws"].items()}
    best, default = ({**cell[name], **laws[cell[name]["law"]]} for name in ("best", "default"))
    return {**cell, "laws": laws, "best": best, "default": default}


def _derived(cell: dict[str, Any], law: str, figures: dict[str, Any]) -> dict[str, float]:
    plan, default = cell["plan"], cell["default"]
    found = {"text_chars_per_forward": (1 if law == "next" else plan["patch"]) / plan["symbols_per_char"]}
    if "body_operations_per_char" in plan:
        positions = figures["positions_per_char"] / default["positions_per_char"]
        found["body_operations_per_char"] = plan["body_operations_per_char"] * positions
    return found


def groups(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The cells that differ in their seed alone, by the name without it, with the speed of their model.

    ``best`` is of the same law in all of a group, the one that is best by the mean over seeds.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    timed = results.get("latency", {}).get("seconds_per_forward", {})
    for name, cell in results["cells"].items():
        group = name.rpartition("/")[0]
        found.setdefault(group, []).append(with_speed(cell, timed.get(group, {})))
    return {group: _with_one_best_law(cells) for group, cells in found.items()}


def _with_one_best_law(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    bits = {
        law: sum(found)
        for law in cells[0].get("laws", {})
        if None not in (found := [lookup(cell, f"laws:{law}:bits_per_char") for cell in cells])
    }
    if len(cells) == 1 or not bits:
        return cells
    law = min(bits, key=lambda name: bits[name])
    return [{**cell, "best": {"law": law, **cell["laws"][law]}} for cell in cells]


def means(results: dict[str, Any]) -> dict[str, Any]:
    """The cells of each group as one, with the mean of every figure."""
    return {group: _mean(cells) for group, cells in groups(results).items()}


def _mean(values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    match known[0] if known else None:
        case dict() as first:
            return {key: _mean([value[key] for value in known if key in value]) for key in first}
        case list() as first:
            return [_mean([value[i] for value in known if i < len(value)]) for i in range(len(first))]
        case bool() | str() | None as first:
            return first
        case _:
            return sum(known) / len(known)

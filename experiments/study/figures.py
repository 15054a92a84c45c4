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


def with_text_speed(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell with ``text_chars_per_forward`` and ``…_second`` of plain decoding under its default law.

    Models that have learned little write other text than they read, of controls or of the longest tokens. So these are
    the characters that the symbols of a forward are in the text of the corpus, and that times forwards per second, as
    measured.
    """
    default, plan = cell.get("default"), cell.get("plan", {})
    if not default:
        return cell
    of_text = (1 if default["law"] == "next" else plan["patch"]) / plan["symbols_per_char"]
    found = {"text_chars_per_forward": of_text}
    per_forward, per_second = default.get("chars_per_forward"), default.get("chars_per_second")
    if per_forward and per_second:
        found["text_chars_per_second"] = per_second / per_forward * of_text
    return {**cell, "default": {**default, **found}}


def groups(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The cells that differ in their seed alone, by the name without it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, cell in results["cells"].items():
        found.setdefault(name.rpartition("/")[0], []).append(cell)
    return found


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

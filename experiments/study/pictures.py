"""Pictures of a study: one figure of its cells against another."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from bytelm.evaluation.comparison_plots import pareto_front

from .figures import points

_COLOURS = (
    *("#3b6fb6", "#dd8452", "#3f9142", "#c44e52", "#8172b3", "#937860", "#2a9d8f", "#777777", "#111111"),
    *("#e6b800", "#e377c2", "#8fbce6", "#9acd32", "#f4a9a8", "#5b2c6f", "#00c5ff", "#b07d2b", "#004d40"),
    *("#808000", "#ff5a36"),
)
_MARKERS = "osD^vPX*"
_COLUMNS = 3
"""Of the legend."""

_OF_FAMILIES = 0, 3, 5
"""Their colours."""

_Point = tuple[float, float, dict[str, str], str, str]
"""Two figures of a group, its options, its name, and the law that they are of, where it has several."""


def draw(path: Path, means: dict[str, Any], plot: dict[str, Any], title: str) -> None:
    """Write one PNG; nothing where no cell has both figures.

    Args:
        path: of the picture.
        means: figures of each group, the mean over seeds.
        plot: ``x`` and ``y``, fields, of ``laws:*`` a point for every law; ``xlabel`` and ``ylabel``; ``colour`` and
            ``marker``, names of axes; ``front``, whether the points that no other beats are joined; ``groups``, those
            that are drawn, as a glob; ``families``, globs by name, each of which has one colour and a front of its own,
            whose points are numbered and named, in place of a name for every point. After ``-`` more of ``x`` is
            better.
        title: above it.
    """
    drawn = [point for group, mean in means.items() for point in _places(group, mean, plot)]
    if not drawn:
        path.unlink(missing_ok=True)
        return
    names = {_name(point[2], plot) for point in drawn}
    figure = Figure(figsize=(7.5, 4 + 0.19 * -(-len(names) // _COLUMNS)), layout="constrained")
    axes = figure.subplots()
    if "families" in plot:
        _draw_families(figure, axes, drawn, plot)
    else:
        _draw_points(figure, axes, drawn, plot)
    axes.set(xscale=plot.get("xscale", "log"), xlabel=plot["xlabel"], ylabel=plot["ylabel"], title=title)
    axes.grid(color="#e4e4e4", linewidth=0.6, which="both")
    axes.set_axisbelow(True)
    figure.savefig(path, dpi=110)


def _places(group: str, mean: dict[str, Any], plot: dict[str, Any]) -> list[_Point]:
    """Where a group is drawn: nowhere where it is not asked for, or has not both figures."""
    if not fnmatchcase(group, plot.get("groups", "*")):
        return []
    found = points(mean, plot["x"].removeprefix("-"), plot["y"])
    return [(x, y, mean["options"], group, law if len(found) > 1 else "") for law, (x, y) in found.items()]


def _name(options: dict[str, str], plot: dict[str, Any]) -> str:
    return ", ".join(filter(None, (options.get(plot.get(kind, "")) for kind in ("colour", "marker"))))


def _front(drawn: list[_Point], plot: dict[str, Any]) -> list[_Point]:
    sign = -1 if plot["x"].startswith("-") else 1
    return [drawn[i] for i in pareto_front([(sign * x, y) for x, y, *_ in drawn])]


def _draw_points(figure: Figure, axes: Axes, drawn: list[_Point], plot: dict[str, Any]) -> None:
    """A colour and a marker for every pair of options, all of them named, and one front."""
    colours, markers = ([point[2].get(plot.get(kind, "")) for point in drawn] for kind in ("colour", "marker"))
    for x, y, options, *_ in drawn:
        colour, marker = options.get(plot.get("colour", "")), options.get(plot.get("marker", ""))
        axes.plot(
            x,
            y,
            _MARKERS[list(dict.fromkeys(markers)).index(marker) % len(_MARKERS)],
            color=_COLOURS[list(dict.fromkeys(colours)).index(colour) % len(_COLOURS)],
            markersize=7,
            label=_name(options, plot),
        )
    if plot.get("front", True):
        front = [point[:2] for point in _front(drawn, plot)]
        axes.plot(*zip(*front, strict=True), "--", drawstyle="steps-post", color="#999999", linewidth=1, zorder=0)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=_COLUMNS, frameon=False, fontsize=8
    )


def _draw_families(figure: Figure, axes: Axes, drawn: list[_Point], plot: dict[str, Any]) -> None:
    """A colour and a front for each family; what is on a front has a number, and a name in the legend."""
    height, number = 0, 0
    for place, (family, glob) in enumerate(plot["families"].items()):
        own = [point for point in drawn if fnmatchcase(point[3], glob)]
        if not own:
            continue
        colour, marker = _COLOURS[_OF_FAMILIES[place % len(_OF_FAMILIES)]], _MARKERS[place % len(_MARKERS)]
        axes.plot([x for x, *_ in own], [y for _, y, *_ in own], marker, color=colour, markersize=5, alpha=0.3)
        front, handles = _front(own, plot), list[Line2D]()
        steps = [point[:2] for point in front]
        axes.plot(*zip(*steps, strict=True), drawstyle="steps-post", color=colour, linewidth=1, zorder=0)
        for x, y, options, group, law in front:
            number += 1
            axes.plot(x, y, marker, color=colour, markersize=11)
            axes.annotate(str(number), (x, y), ha="center", va="center", color="white", fontsize=6.5, weight="bold")
            comparison = group.partition("/")[0]
            said = ", ".join(filter(None, (*options.values(), law)))
            named = f"{number}  {said}" + ("" if comparison == "plain" else f" ({comparison})")
            handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", label=named, markersize=5))
        legend = figure.legend(
            handles=handles,
            title=f"{family}, {len({point[3] for point in own})} models",
            loc=("lower left", "lower center", "lower right")[place % 3],
            frameon=False,
            fontsize=6.5,
            title_fontsize=8,
            handlelength=1,
            handletextpad=0.3,
        )
        legend.set_in_layout(False)
        height = max(height, len(front))
    below = 0.15 * height + 0.35
    size = 4.4 + below
    figure.set_size_inches(figure.get_size_inches()[0], size)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, below / size, 1, 1 - below / size)))

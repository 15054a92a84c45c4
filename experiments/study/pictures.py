"""Pictures of a study: one figure of its cells against another."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bytelm.evaluation.comparison_plots import pareto_front

from .figures import lookup

_COLOURS = (
    *("#3b6fb6", "#dd8452", "#3f9142", "#c44e52", "#8172b3", "#937860", "#2a9d8f", "#777777", "#111111"),
    *("#e6b800", "#e377c2", "#8fbce6", "#9acd32", "#f4a9a8", "#5b2c6f", "#00c5ff", "#b07d2b", "#004d40"),
    *("#808000", "#ff5a36"),
)
_MARKERS = "osD^vPX*"
_COLUMNS = 3
"""Of the legend."""


def draw(path: Path, means: dict[str, Any], plot: dict[str, Any], title: str) -> None:
    """Write one PNG; nothing where no cell has both figures.

    Args:
        path: of the picture.
        means: figures of each group, the mean over seeds.
        plot: ``x`` and ``y``, fields; ``xlabel`` and ``ylabel``; ``colour`` and ``marker``, names of axes; ``front``,
            whether the points that no other beats are joined; ``groups``, those that are drawn, as a glob. After ``-``
            more of ``x`` is better.
        title: above it.
    """
    sign = -1 if plot["x"].startswith("-") else 1
    points = [
        (lookup(mean, plot["x"].removeprefix("-")), lookup(mean, plot["y"]), mean["options"], group)
        for group, mean in means.items()
        if fnmatchcase(group, plot.get("groups", "*"))
    ]
    points = [point for point in points if None not in point[:2]]
    if not points:
        path.unlink(missing_ok=True)
        return
    names = {tuple(point[2].get(plot.get(kind)) for kind in ("colour", "marker")) for point in points}
    figure = Figure(figsize=(7.5, 4 + 0.19 * -(-len(names) // _COLUMNS)), layout="constrained")
    axes = figure.subplots()
    colours, markers = ([point[2].get(plot.get(kind)) for point in points] for kind in ("colour", "marker"))
    for x, y, options, _ in points:
        colour, marker = options.get(plot.get("colour")), options.get(plot.get("marker"))
        axes.plot(
            x,
            y,
            _MARKERS[list(dict.fromkeys(markers)).index(marker) % len(_MARKERS)],
            color=_COLOURS[list(dict.fromkeys(colours)).index(colour) % len(_COLOURS)],
            markersize=7,
            label=", ".join(filter(None, (colour, marker))),
        )
    if plot.get("front", True):
        front = [points[i][:2] for i in pareto_front([(sign * x, y) for x, y, *_ in points])]
        axes.plot(*zip(*front, strict=True), "--", drawstyle="steps-post", color="#999999", linewidth=1, zorder=0)
    axes.set(xscale=plot.get("xscale", "log"), xlabel=plot["xlabel"], ylabel=plot["ylabel"], title=title)
    axes.grid(color="#e4e4e4", linewidth=0.6, which="both")
    axes.set_axisbelow(True)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=_COLUMNS, frameon=False, fontsize=8
    )
    figure.savefig(path, dpi=110)

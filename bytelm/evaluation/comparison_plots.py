"""A picture of what models predict and what that costs: Pareto fronts. PNG, no display needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bytelm.evaluation.plots import japanese_font

_COLOURS = ("#3b6fb6", "#dd8452", "#3f9142", "#c44e52", "#8172b3", "#937860", "#2a9d8f", "#777777")
_MARKERS = {"next": "o", "chain": "D", "product": "s"}


@dataclass(frozen=True)
class ModelPoint:
    """One law of one model.

    Attributes:
        model: its name.
        law: the law.
        bits_per_char: of held-out text.
        operations_per_char: of plain decoding.
        speeds: characters per second by drafter; may be empty.
    """

    model: str
    law: str
    bits_per_char: float
    operations_per_char: float
    speeds: Mapping[str, float]


def pareto_front(costs: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other beats, by their first cost: none is as low in both and lower in one."""
    order = sorted(range(len(costs)), key=lambda i: costs[i])
    front: list[int] = []
    for i in order:
        if not front or costs[i][1] < costs[front[-1]][1] or costs[i] == costs[front[-1]]:
            front.append(i)
    return front


def plot_pareto(path: Path, points: Sequence[ModelPoint], title: str) -> None:
    """Bits per character against operations per character, and against characters per second where they were measured.

    Both costs are logarithmic, and better is to the lower left in the first panel, to the lower right in the second.
    Dashed steps join the points that no other beats. In the second panel a filled mark is plain decoding, and every
    ring on its line a drafter, which changes the speed alone.

    Args:
        path: PNG to write.
        points: at least one.
        title: what was measured and how.
    """
    with_speed = any(speed > 0 for point in points for speed in point.speeds.values())
    figure = Figure(figsize=(12.5 if with_speed else 7, 4.8), layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(10), parse_math=False)
    panels = figure.subplots(1, 1 + with_speed, sharey=True, squeeze=False)[0]
    models = list(dict.fromkeys(point.model for point in points))
    colours = {model: _COLOURS[i % len(_COLOURS)] for i, model in enumerate(models)}
    _draw_operations(panels[0], points, colours)
    if with_speed:
        _draw_speeds(panels[1], points, colours)
    for axes in panels:
        axes.set_xscale("log")
        axes.grid(color="#e4e4e4", linewidth=0.6, which="both")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("bits per character")
    laws = list(dict.fromkeys(point.law for point in points))
    handles = [
        *(Line2D([], [], color=colours[model], marker="o", linestyle="", label=model) for model in models),
        *(Line2D([], [], color="#555555", marker=_MARKERS[law], linestyle="", label=f"law {law}") for law in laws),
        Line2D([], [], color="#999999", linestyle="--", label="no other is better in both"),
    ]
    columns = min(len(handles), 4 if with_speed else 2)
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set(fontproperties=japanese_font(9), parse_math=False)
    figure.savefig(path, dpi=120)


def _draw_operations(axes: Axes, points: Sequence[ModelPoint], colours: Mapping[str, str]) -> None:
    _draw_front(axes, [(point.operations_per_char, point.bits_per_char) for point in points], 1)
    for point in points:
        axes.plot(
            point.operations_per_char,
            point.bits_per_char,
            _MARKERS[point.law],
            color=colours[point.model],
            markersize=7,
        )
    axes.set_xlabel("operations per character, plain decoding (a multiplication and an addition are two)")


def _draw_speeds(axes: Axes, points: Sequence[ModelPoint], colours: Mapping[str, str]) -> None:
    shown = [(speed, point.bits_per_char) for point in points for speed in point.speeds.values() if speed > 0]
    _draw_front(axes, shown, -1)
    for point in points:
        speeds = {draft: speed for draft, speed in point.speeds.items() if speed > 0}
        if not speeds:
            continue
        colour, marker = colours[point.model], _MARKERS[point.law]
        axes.plot(sorted(speeds.values()), [point.bits_per_char] * len(speeds), color=colour, linewidth=1)
        for draft, speed in speeds.items():
            fill = colour if draft == "none" else "white"
            axes.plot(speed, point.bits_per_char, marker, color=colour, markerfacecolor=fill, markersize=7)
        fastest = max(speeds, key=lambda draft: speeds[draft])
        axes.annotate(
            "plain" if fastest == "none" else fastest,
            (speeds[fastest], point.bits_per_char),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_xlabel("characters per second, greedy, batch 1 (filled: plain; rings: drafters)")


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]], sign: int) -> None:
    """Dashed steps along the best points, beyond which none is; ``sign`` is -1 where more is better."""
    front = [points[i] for i in pareto_front([(sign * x, y) for x, y in points])]
    axes.plot(*zip(*front, strict=True), "--", drawstyle="steps-post", color="#999999", linewidth=1, zorder=0)

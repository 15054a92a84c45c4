"""A picture of decoding: speeds of all ways beside those of others, and how drafts fare. PNG, no display needed."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bytelm.evaluation.plots import japanese_font

_BATCH_COLOURS = ("#9ecae1", "#3b6fb6", "#17375e", "#6a51a3")
_RIVAL_COLOURS = ("#fdd0a2", "#dd8452", "#8c4a1f", "#5c3317")
_WAY_COLOURS = ("#3b6fb6", "#dd8452", "#3f9142", "#c44e52", "#8172b3", "#937860", "#2a9d8f", "#777777")
_STYLES = ("o-", "s--", "^:", "D-.")


def plot_decoding(
    path: Path,
    speeds: Sequence[tuple[str, int, float, float]],
    rivals: Sequence[tuple[str, int, float]],
    acceptance: Sequence[tuple[str, float, Sequence[float]]],
    title: str,
    *,
    unit: str = "characters",
    note: str = "",
) -> None:
    """Bars of speed, a panel for each temperature, and lines of acceptance by draft offset.

    Args:
        speeds: (way, batch, temperature, characters per second).
        rivals: (name, batch, characters per second of greedy decoding); drawn below the ways at the lowest temperature.
        acceptance: (way, temperature, share of accepted drafts at offsets 1, 2, …).
        title: what was measured and how.
        unit: what the speeds count, per second.
        note: what the reader must know of the rivals.
    """
    batches = sorted({batch for _, batch, _, _ in speeds})
    temperatures = sorted({temperature for _, _, temperature, _ in speeds})
    names = list(dict.fromkeys([*(name for name, *_ in speeds), *(name for name, *_ in rivals)]))
    columns = len(temperatures) + bool(acceptance)
    size = (2.4 + 3.4 * columns, 1.6 + 0.14 * len(names) * (len(batches) + 1))
    figure = Figure(figsize=(size[0], max(4.0, size[1])), layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(11), parse_math=False)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    figure.supxlabel(note, fontsize=8)
    highest = max([1e-9, *(value for *_, value in speeds), *(value for *_, value in rivals)])
    for column, temperature in enumerate(temperatures):
        shown = {(name, batch): value for name, batch, t, value in speeds if t == temperature}
        theirs = {(name, batch): value for name, batch, value in rivals} if column == 0 else {}
        _draw_bars(panels[column], names, batches, shown, theirs)
        greedy = " (greedy)" if temperature == 0 else ""
        panels[column].set_xlabel(f"{unit} per second")
        panels[column].set_title(f"T = {temperature:g}{greedy}", fontsize=10)
        panels[column].set_xlim(0, 1.18 * highest)
        if column:
            panels[column].tick_params(labelleft=False)
    handles, labels = panels[0].get_legend_handles_labels()
    panels[len(temperatures) - 1].legend(handles, labels, fontsize=8, loc="best")
    if acceptance:
        _draw_acceptance(panels[-1], acceptance, temperatures)
    figure.savefig(path, dpi=120)


def _draw_bars(
    axes: Axes,
    names: Sequence[str],
    batches: Sequence[int],
    ours: dict[tuple[str, int], float],
    theirs: dict[tuple[str, int], float],
) -> None:
    """A group of bars for each name, the first on top, in it one for each batch size."""
    height = 0.8 / len(batches)
    for kind, shown, colours in (("", ours, _BATCH_COLOURS), ("transformers, ", theirs, _RIVAL_COLOURS)):
        for i, batch in enumerate(batches):
            places = [
                n + (i - (len(batches) - 1) / 2) * height for n, name in enumerate(names) if (name, batch) in shown
            ]
            values = [shown[name, batch] for name in names if (name, batch) in shown]
            if not values:
                continue
            bars = axes.barh(places, values, height=height, color=colours[i % 4], label=f"{kind}batch {batch}")
            axes.bar_label(bars, [f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in values], fontsize=6)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.5))


def _draw_acceptance(
    axes: Axes, acceptance: Sequence[tuple[str, float, Sequence[float]]], temperatures: Sequence[float]
) -> None:
    ways = list(dict.fromkeys(name for name, *_ in acceptance))
    for name, temperature, shares in acceptance:
        axes.plot(
            range(1, len(shares) + 1),
            shares,
            _STYLES[temperatures.index(temperature) % len(_STYLES)],
            color=_WAY_COLOURS[ways.index(name) % len(_WAY_COLOURS)],
            markersize=4,
            linewidth=1,
            label=f"{name}, T = {temperature:g}",
        )
    axes.set_title("accepted, of the drafts judged", fontsize=10)
    axes.set(xlabel="draft offset", ylim=(0, 1.02))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=6, ncols=2)

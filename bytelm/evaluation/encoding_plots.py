"""Pictures of encodings: their speed against tokenizers, and how a dense code writes a text. PNG, no display needed."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bytelm.evaluation.plots import japanese_font

_KIND_COLOURS = {"ceiling": "#9aa0a6", "encoding": "#3b6fb6", "rival": "#dd8452"}


def plot_coding_speed(path: Path, rows: Sequence[tuple[str, str, float, float]], title: str) -> None:
    """Bars of the speed of coders both ways, on a logarithmic scale, the fastest encoder on top.

    Args:
        rows: (name, kind, MB of UTF-8 encoded per second, MB decoded per second); the kind is ``ceiling``,
            ``encoding`` or ``rival``.
        title: the text that was measured and how.
    """
    ordered = sorted(rows, key=lambda row: row[2])
    figure = Figure(figsize=(10, 1.4 + 0.36 * len(ordered)), layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(11), parse_math=False)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    places = range(len(ordered))
    speeds = {"encode": [row[2] for row in ordered], "decode": [row[3] for row in ordered]}
    lowest, highest = min(map(min, speeds.values())), max(map(max, speeds.values()))
    for axes, (label, values) in zip(panels, speeds.items(), strict=True):
        bars = axes.barh(places, values, color=[_KIND_COLOURS[row[1]] for row in ordered], height=0.72)
        axes.bar_label(bars, [f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in values], padding=3)
        axes.set(xscale="log", xlim=(lowest / 2, highest * 4), title=label, xlabel="MB of UTF-8 per second, one thread")
        axes.set_yticks(places, [row[0] for row in ordered])
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)

"""Pictures of encodings: their speed against tokenizers, and how they write the same texts. PNG, no display needed."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bytelm.evaluation.encoding_comparison import CodeComparison
from bytelm.evaluation.plots import japanese_font

_KIND_COLOURS = {"ceiling": "#9aa0a6", "encoding": "#3b6fb6", "rival": "#dd8452"}
_CODE_COLOURS = ["#5f6368", "#9aa0a6", "#c5c8cc", "#8d6e63", "#bca08e", "#6aa84f", "#d62728", "#1f77b4"]
_MUCH_MISSING = 0.01
_COMPARED = {
    "bytes_per_character": "bytes per character",
    "correlation_per_character": "total correlation inside a patch, bits per character",
}


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


def plot_comparison(path: Path, rows: Sequence[CodeComparison], title: str) -> None:
    """Dots of bytes per character and of total correlation per character, a line for each group of texts; empty where
    more than one character in a hundred has no word in the code.

    Args:
        path: PNG to write.
        rows: groups and codes in the order in which they are drawn.
        title: what was compared.
    """
    groups = list(dict.fromkeys(row.group for row in rows))
    codes = list(dict.fromkeys(row.code for row in rows))
    colours = dict(zip(codes, _CODE_COLOURS * len(codes), strict=False))
    figure = Figure(figsize=(12, 1.9 + 0.5 * len(groups)), layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(11), parse_math=False)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (field, label) in zip(panels, _COMPARED.items(), strict=True):
        for row in rows:
            dense = row.code.startswith("dense")
            place = groups.index(row.group) + (codes.index(row.code) - (len(codes) - 1) / 2) * 0.09
            axes.plot(
                getattr(row, field),
                place,
                "D" if dense else "o",
                color=colours[row.code],
                fillstyle="none" if row.missing > _MUCH_MISSING else "full",
                markersize=7 if dense else 5.5,
            )
        axes.set(xlabel=label, xlim=(0, None), ylim=(len(groups) - 0.5, -0.5))
        axes.set_yticks(range(len(groups)), groups)
        axes.set_yticks([place + 0.5 for place in range(len(groups) - 1)], minor=True)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.grid(axis="y", which="minor", color="#dddddd", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], color=colours[code], marker="D" if code.startswith("dense") else "o", linestyle="", label=code)
        for code in codes
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(codes), frameon=False)
    figure.savefig(path, dpi=120)

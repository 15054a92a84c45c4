"""Pictures of speculative decoding: which forward gave which symbol, why drafts change none. PNG, no display needed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bytelm.decoding import DecodeStats
from bytelm.evaluation.plots import japanese_font, printable
from bytelm.hub import Output
from bytelm.hub.output import PALETTE

_LAW, _DRAFT, _REJECTED = "#3b6fb6", "#dd8452", "#c44e52"
_LINES = ("#3b6fb6", "#dd8452", "#3f9142", "#8172b3", "#937860", "#777777")
_PARTS = {"prefill": "#c5c8cc", "draft": "#dd8452", "verify": "#3b6fb6", "host": "#8d99ae"}
_INK, _EDGE = "#1f2933", "#7b8794"


def plot_staircase(path: Path, runs: Sequence[tuple[str, Output]], title: str, *, row: int = 0, most: int = 44) -> None:
    """The first symbols of a row, one to a column, each on the step of the forward that gave it, a panel for each run.

    A step is as wide as the forward gave symbols; the colour says who had proposed a symbol. A character stands where
    its last symbol does.

    Args:
        path: PNG to write.
        runs: (name, output), of one prompt.
        title: what is shown.
        row: of the outputs.
        most: symbols that are drawn.
    """
    most = min([most, *(len(out.ids[row]) for _, out in runs)])
    steps = [int(out.trace[row].forward[:most].max(initial=0)) + 1 for _, out in runs]
    size = (0.27 * most + 1.2, 0.9 + sum(0.115 * count + 0.55 for count in steps))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(11), parse_math=False)
    ratios = [0.115 * count + 0.55 for count in steps]
    panels = figure.subplots(len(runs), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    used: dict[str, None] = {}
    for axes, (name, out), count in zip(panels, runs, steps, strict=True):
        trace = out.trace[row]
        for x, (forward, source) in enumerate(zip(trace.forward[:most], trace.source[:most], strict=True)):
            used[str(source)] = None
            colour = PALETTE.get(str(source), "#dddddd")
            axes.add_patch(Rectangle((x, int(forward)), 1, 1, facecolor=colour, edgecolor=_EDGE, linewidth=0.5))
        _characters(axes, out, row, most)
        axes.set(xlim=(0, most), ylim=(count, -max(2.0, 0.13 * count)), ylabel="forward")
        axes.set_title(f"{name}: {count} forwards", fontsize=10, loc="left", pad=3)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("symbol (byte, or token)")
    names = {"law": "the law itself, no draft held"}
    handles = [
        Patch(facecolor=PALETTE.get(name, "#dddddd"), edgecolor=_EDGE, label=names.get(name, f"drafted by {name}"))
        for name in used
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)


def _characters(axes: Axes, out: Output, row: int, most: int) -> None:
    """The text above the steps."""
    font, decoder = japanese_font(11), out.tokenizer.decoder("replace")
    for x, symbol in enumerate(out.ids[row][:most]):
        text = decoder.decode(np.asarray([symbol]))
        if len(text) == 1:
            axes.text(
                x + 0.5,
                -0.5,
                printable(text),
                ha="center",
                va="bottom",
                fontproperties=font,
                color=_INK,
                parse_math=False,
            )


def plot_drafting(path: Path, runs: Sequence[tuple[str, DecodeStats]], title: str) -> None:
    """What drafts of several drafters came to: the share that held at each offset, and where the time went.

    Args:
        path: PNG to write.
        runs: (drafter, statistics of a run); those of the same text.
        title: what was decoded.
    """
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(11), parse_math=False)
    left, right = figure.subplots(1, 2)
    for i, (name, stats) in enumerate(run for run in runs if run[1].drafted):
        shares = np.array(stats.acceptance_at)
        left.plot(np.arange(len(shares)) + 1, shares, "o-", color=_LINES[i % len(_LINES)], markersize=4, label=name)
    left.set(xlabel="offset of the draft after the last symbol", ylabel="share accepted", ylim=(0, 1.03))
    left.set_title("drafts that held, of those before which all held", fontsize=10)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(fontsize=8)
    begin = np.zeros(len(runs))
    for part, colour in _PARTS.items():
        values = np.array([1e3 * getattr(stats.parts, part) for _, stats in runs])
        right.barh(range(len(runs)), values, left=begin, color=colour, label=part, height=0.62)
        begin += values
    for y, (total, (_, stats)) in enumerate(zip(begin, runs, strict=True)):
        right.text(total, y, f"  {stats.forwards} forwards", va="center", fontsize=8, color=_INK)
    right.set_yticks(range(len(runs)), [name for name, _ in runs])
    right.set(xlabel="milliseconds", xlim=(0, 1.3 * begin.max()), ylim=(len(runs) - 0.4, -0.6))
    right.set_title("where the time went", fontsize=10)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=4, frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def plot_coupling(
    path: Path,
    steps: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]],
    labels: Sequence[str],
    title: str,
) -> None:
    """Positions of a text, a column each: the law and the draft's guess of it above, both with the same noise below.

    The largest of each row of dots is the symbol that is chosen, so that a guess near the law mostly gives the law's
    symbol; and where it does not, the symbol is the law's all the same.

    Args:
        path: PNG to write.
        steps: (log p of the law, log q of the draft, Gumbel noise), each (V,), for each position.
        labels: of the symbols.
        title: what is shown.
    """
    figure = Figure(figsize=(3.5 * len(steps) + 0.5, 5.0), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(2, len(steps), squeeze=False, sharex=True, sharey="row")
    x = np.arange(len(labels))
    for column, (log_p, log_q, noise) in enumerate(steps):
        above, below = panels[:, column]
        above.bar(x - 0.2, np.exp(log_p), 0.38, color=_LAW, alpha=0.8)
        above.bar(x + 0.2, np.exp(log_q), 0.38, color=_DRAFT, alpha=0.8)
        ours, theirs = log_p + noise, log_q + noise
        chosen, drafted = int(ours.argmax()), int(theirs.argmax())
        below.vlines(x, np.minimum(ours, theirs), np.maximum(ours, theirs), color="#d0d4da", linewidth=1)
        below.plot(x - 0.08, ours, "o", color=_LAW, markersize=5)
        below.plot(x + 0.08, theirs, "o", color=_DRAFT, markersize=5)
        for best, scores, shift, colour in ((chosen, ours, -0.08, _LAW), (drafted, theirs, 0.08, _DRAFT)):
            below.plot(best + shift, scores[best], "o", markersize=13, fillstyle="none", color=colour)
        held = chosen == drafted
        verdict = "the draft holds" if held else f"the draft ({labels[drafted]}) is replaced by {labels[chosen]}"
        above.set_title(f"position {column + 1}: {verdict}", fontsize=9.5, color=_INK if held else _REJECTED)
        below.set_xticks(x, labels)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("probability")
    panels[1, 0].set_ylabel("log probability + noise")
    handles = [
        Line2D([], [], color=_LAW, marker="o", linestyle="", label="law p"),
        Line2D([], [], color=_DRAFT, marker="o", linestyle="", label="draft q, with the same noise"),
        Line2D([], [], color=_INK, marker="o", markersize=11, fillstyle="none", linestyle="", label="the largest"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)


def plot_counts(
    path: Path, panels: Sequence[tuple[str, NDArray[np.int64], NDArray[np.float64]]], labels: Sequence[str], title: str
) -> None:
    """How often each outcome was drawn, beside how often the law says; a panel for each way of drawing.

    A whisker is two standard deviations of a count under the law.

    Args:
        path: PNG to write.
        panels: (name, counts (V,), probabilities (V,)).
        labels: of the outcomes.
        title: what was drawn.
    """
    figure = Figure(figsize=(3.9 * len(panels), 3.3), layout="constrained")
    figure.suptitle(title, fontsize=11)
    x = np.arange(len(labels))
    for axes, (name, counts, probabilities) in zip(
        figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True
    ):
        total = int(counts.sum())
        spread = 2 * np.sqrt(total * probabilities * (1 - probabilities))
        axes.bar(x, counts, color="#9ecae1", width=0.75, label="drawn")
        axes.errorbar(x, total * probabilities, spread, fmt="_", color=_INK, markersize=9, capsize=2, label="the law")
        axes.set_xticks(x, labels, fontsize=7, rotation=90)
        axes.set_title(name, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)

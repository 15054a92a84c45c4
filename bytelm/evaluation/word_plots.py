"""Pictures of how long the words of a text are: by rank of the character, and by encoding. PNG, no display needed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bytelm.encoding import CodeStatistics, Encoding
from bytelm.evaluation.plots import japanese_font, printable

_LENGTHS = ("#3b6fb6", "#7fb07f", "#f6a04d", "#c44e52")
_INK = "#1f2933"
_NAMED = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_LEAST = 0.04


def plot_ranks(path: Path, encoding: Encoding, counts: NDArray[np.int64], title: str) -> None:
    """Characters of a text by frequency, in the colour of the length of their words; some of them are named.

    Args:
        path: PNG to write.
        encoding: gives the lengths.
        counts: of each code point, by ``count_characters``; of at least one character.
        title: of which text.
    """
    seen = np.flatnonzero(counts)
    seen = seen[np.argsort(-counts[seen], kind="stable")]
    ranks, lengths = np.arange(1, len(seen) + 1), encoding.lengths[seen]
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(11), parse_math=False)
    axes = figure.subplots()
    axes.plot(ranks, counts[seen], color="#d0d4da", linewidth=1, zorder=0)
    handles = []
    for length, colour in enumerate(_LENGTHS, 1):
        own = lengths == length
        if own.any():
            axes.plot(ranks[own], counts[seen][own], "o", color=colour, markersize=4)
            share = counts[seen][own].sum() / counts.sum()
            label = f"{length} byte{'s' * (length > 1)}: {own.sum():,} characters, {share:.1%} of the text"
            handles.append(Line2D([], [], color=colour, marker="o", linestyle="", label=label))
    for rank in _NAMED:
        if rank <= len(seen):
            axes.annotate(
                printable(chr(seen[rank - 1])),
                (rank, counts[seen[rank - 1]]),
                xytext=(4, 5),
                textcoords="offset points",
                fontproperties=japanese_font(12),
                color=_INK,
            )
    axes.set(xscale="log", yscale="log", xlabel="rank of the character in this text", ylabel="occurrences")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(handles=handles, loc="lower left", frameon=False, fontsize=9, title=f"words of {encoding.name}")
    figure.savefig(path, dpi=120)


def plot_word_lengths(path: Path, rows: Sequence[tuple[str, CodeStatistics]], title: str) -> None:
    """The share of a text whose words have 1, 2, 3 and 4 bytes, and the mean, for each encoding.

    Args:
        path: PNG to write.
        rows: (encoding, its statistics on the text), the first on top.
        title: of which text.
    """
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(rows)), layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(11), parse_math=False)
    axes = figure.subplots()
    begin = np.zeros(len(rows))
    for length, colour in enumerate(_LENGTHS, 1):
        shares = np.array([statistics.shares[length - 1] for _, statistics in rows])
        label = f"{length} byte{'s' * (length > 1)}"
        bars = axes.barh(range(len(rows)), shares, left=begin, color=colour, height=0.66, label=label)
        shown = [f"{share:.0%}" if share > _LEAST else "" for share in shares]
        axes.bar_label(bars, shown, label_type="center", color="white", fontsize=9)
        begin += shares
    for y, (_, statistics) in enumerate(rows):
        axes.text(1.01, y, f"{statistics.bytes_per_character:.2f} bytes per character", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set(xlim=(0, 1.3), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)

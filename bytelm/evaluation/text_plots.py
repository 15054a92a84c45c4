"""Pictures of texts: what surprises a model, and how much text a forward covers. PNG, no display needed."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from bytelm.evaluation.plots import japanese_font, printable
from bytelm.evaluation.surprise import CharacterBits

_COLUMNS = 34
_MOST_BITS = 16.0
_INK, _SOFT = "#1f2933", "#6b7785"
_ROW_COLOURS = ("#5b8ff9", "#f6a04d", "#6aa84f", "#b07cc6", "#8d99ae")


def plot_surprise(path: Path, rows: Sequence[tuple[str, Sequence[CharacterBits]]], title: str) -> None:
    """Texts whose background says how many bits each character cost, on one scale; the mean stands beside each.

    Args:
        path: PNG to write.
        rows: (name, characters with their bits), such as one text under several models.
        title: what is shown.
    """
    wrapped = [(name, cells, list(_lines(cells))) for name, cells in rows]
    num_lines = sum(len(lines) + 1.1 for _, _, lines in wrapped)
    figure = Figure(figsize=(_COLUMNS * 0.3 + 1.6, 0.9 + 0.36 * num_lines), layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(11), parse_math=False)
    axes = figure.subplots()
    axes.set(xlim=(0, _COLUMNS), ylim=(num_lines, 0))
    axes.axis("off")
    colours, scale = colormaps["YlOrRd"], Normalize(0, _MOST_BITS)
    y = 0.0
    for name, cells, lines in wrapped:
        chars = sum(len(cell.text) for cell in cells)
        mean = sum(cell.bits for cell in cells) / max(1, chars)
        axes.text(0, y + 0.6, f"{name}: {mean:.2f} bits per character", va="center", color=_INK, fontsize=10)
        y += 1
        for line in lines:
            x = 0
            for cell in line:
                each = cell.bits / len(cell.text)
                _cell(axes, x, y, cell.text, colours(scale(each)), each > 0.6 * _MOST_BITS)
                x += len(cell.text)
            y += 1
        y += 0.1
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes, fraction=0.02, pad=0.01, extend="max")
    bar.set_label("bits")
    figure.savefig(path, dpi=120)


def plot_pieces(path: Path, rows: Sequence[tuple[str, Sequence[str]]], title: str) -> None:
    """One text cut where forwards end, a row for each model: a box is a forward, and what stands in it its characters.

    Args:
        path: PNG to write.
        rows: (name, characters that each forward completes); an empty box completes none.
        title: what is shown.
    """
    widths = [[max(1.0, 1.0 * len(piece)) for piece in pieces] for _, pieces in rows]
    longest = max(sum(of) + 0.25 * len(of) for of in widths)
    figure = Figure(figsize=(0.3 * longest + 2.2, 0.7 + 0.62 * len(rows)), layout="constrained")
    figure.suptitle(title, fontproperties=japanese_font(11), parse_math=False)
    axes = figure.subplots()
    axes.set(xlim=(-7.5, longest + 0.2), ylim=(1.6 * len(rows), -0.2))
    axes.axis("off")
    font = japanese_font(12)
    for number, ((name, pieces), of) in enumerate(zip(rows, widths, strict=True)):
        colour, x, y = _ROW_COLOURS[number % len(_ROW_COLOURS)], 0.0, 1.6 * number
        axes.text(-7.4, y + 0.4, name, va="center", color=_INK, fontsize=10)
        axes.text(-7.4, y + 0.95, f"{len(pieces)} forwards", va="center", color=_SOFT, fontsize=8)
        for piece, width in zip(pieces, of, strict=True):
            style = "round,pad=0,rounding_size=0.18"
            box = FancyBboxPatch((x, y), width, 1.0, boxstyle=style, facecolor=colour, alpha=0.35, edgecolor=colour)
            axes.add_patch(box)
            for i, character in enumerate(piece):
                shown = printable(character)
                axes.text(x + i + 0.5, y + 0.5, shown, ha="center", va="center", fontproperties=font, parse_math=False)
            x += width + 0.25
    figure.savefig(path, dpi=120)


def _lines(cells: Sequence[CharacterBits]) -> list[list[CharacterBits]]:
    """Cells in lines of at most so many characters."""
    lines, room = [list[CharacterBits]()], _COLUMNS
    for cell in cells:
        if len(cell.text) > room and lines[-1]:
            lines.append([])
            room = _COLUMNS
        lines[-1].append(cell)
        room -= len(cell.text)
    return lines


def _cell(axes: Axes, x: float, y: float, text: str, colour: tuple[float, ...], is_dark: bool) -> None:
    axes.add_patch(Rectangle((x, y), len(text), 0.94, facecolor=colour, edgecolor="white", linewidth=0.8))
    font, ink = japanese_font(12), "white" if is_dark else _INK
    for i, character in enumerate(text):
        shown = printable(character)
        axes.text(
            x + i + 0.5,
            y + 0.47,
            shown,
            ha="center",
            va="center",
            color=ink,
            fontproperties=font,
            parse_math=False,
        )

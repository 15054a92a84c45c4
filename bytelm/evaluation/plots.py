"""Pictures of a run: loss, bits per head, and generated text coloured by patch and head. PNG, no display needed."""

import functools
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from bytelm.encoding import Encoding

_HEAD_COLOURS = ("#9ecae1", "#a1d99b", "#fdd0a2", "#f4a6c0", "#c7b9e2", "#d9d9a3", "#a8ddd3", "#cccccc")
_COLUMNS = 40
_NO_GLYPH = "〓"  # the geta mark, which Japanese printers set where they lack a character


def japanese_font(size: float) -> FontProperties:
    """A font with Japanese glyphs that comes with a dependency of the package, so that no system font is needed."""
    return FontProperties(fname=str(files("matplotlib_fontja") / "fonts" / "ipaexg.ttf"), size=size)


@functools.cache
def _glyphs() -> frozenset[int]:
    """Scalar values that the Japanese font can draw."""
    return frozenset(FT2Font(str(japanese_font(1).get_file())).get_charmap())


def printable(character: str) -> str:
    """The character as the Japanese font shows it; an arrow for the end of a line, a mark where it has no glyph."""
    shown = "⏎" if character == "\n" else character
    return shown if ord(shown) in _glyphs() else _NO_GLYPH


def plot_loss(path: Path, train: Sequence[tuple[int, float]], valid: Sequence[tuple[int, float]]) -> None:
    """Training loss in nats per byte and held-out bits per character, against steps.

    Args:
        train: (step, nats per byte).
        valid: (step, bits per character).
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*train, strict=True), color="#3b6fb6", linewidth=1, label="training, nats per byte")
    axes.set(xlabel="step", ylabel="nats per byte")
    right = axes.twinx()
    right.plot(*zip(*valid, strict=True), "o-", color="#c44e52", label="held out, bits per character")
    right.set_ylabel("bits per character")
    handles = [*axes.get_lines(), *right.get_lines()]
    axes.legend(handles, [str(h.get_label()) for h in handles])
    figure.savefig(path, dpi=120)


def plot_head_bits(path: Path, bits: Mapping[int, Sequence[float]]) -> None:
    """Held-out bits per byte of each head, against steps.

    Args:
        bits: step to the bits of heads 1, 2, ….
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = sorted(bits)
    for head in range(len(bits[steps[0]])):
        axes.plot(steps, [bits[s][head] for s in steps], "o-", color=_darker(head), label=f"head {head + 1}")
    axes.set(xlabel="step", ylabel="bits per byte")
    axes.legend()
    figure.savefig(path, dpi=120)


def plot_text(
    path: Path,
    encoding: Encoding,
    samples: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]],
) -> None:
    """Generated text, one cell per character, one strip per byte coloured by the head that gave it.

    The bar below a strip changes its shade with each forward of the body, so that one bar is one patch.

    Args:
        samples: (prompt, symbols, forward of each symbol, place of each symbol in its forward) per sample.
    """
    rows = [_cells(encoding, *sample) for sample in samples]
    num_lines = sum(-(-len(cells) // _COLUMNS) for cells in rows) + len(rows)
    figure = Figure(figsize=(_COLUMNS * 0.3, 0.8 + num_lines * 0.42))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set(xlim=(0, _COLUMNS), ylim=(num_lines + 1.2, 0))
    axes.axis("off")
    _legend(axes)
    font, y = japanese_font(12), 1.2
    for cells in rows:
        for begin in range(0, len(cells), _COLUMNS):
            for x, cell in enumerate(cells[begin : begin + _COLUMNS]):
                _draw(axes, x, y, *cell, font)
            y += 1
        y += 1
    figure.savefig(path, dpi=120)


Cell = tuple[str, list[int], list[int]]


def _cells(
    encoding: Encoding,
    prompt: str,
    symbols: NDArray[np.uint8],
    forwards: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> list[Cell]:
    """(character, forwards, heads) of each character; a character of the prompt has no bytes of its own."""
    cells: list[Cell] = [(character, [], []) for character in prompt]
    starts = np.flatnonzero(encoding.char_starts(symbols)).tolist()
    for start, end in zip(starts, [*starts[1:], len(symbols)], strict=True):
        word = symbols[start:end]
        is_control = any(word.tobytes() == code for code in encoding.controls.values())
        text = "■" if is_control else encoding.decode(word, errors="replace")
        cells.append((text, forwards[start:end].tolist(), offsets[start:end].tolist()))
    return cells


def _draw(
    axes: Axes, x: float, y: float, text: str, forwards: list[int], heads: list[int], font: FontProperties
) -> None:
    for i, (forward, head) in enumerate(zip(forwards, heads, strict=True)):
        left, width = x + i / len(heads), 1 / len(heads)
        axes.add_patch(Rectangle((left, y), width, 0.74, color=_HEAD_COLOURS[head % len(_HEAD_COLOURS)], linewidth=0))
        shade = "#333333" if forward % 2 else "#bbbbbb"
        axes.add_patch(Rectangle((left, y + 0.76), width, 0.1, color=shade, linewidth=0))
    axes.text(x + 0.5, y + 0.39, printable(text), ha="center", va="center", fontproperties=font, parse_math=False)


def _legend(axes: Axes) -> None:
    font = japanese_font(9)
    for head in range(4):
        axes.add_patch(Rectangle((head * 4, 0.2), 0.8, 0.5, color=_HEAD_COLOURS[head], linewidth=0))
        axes.text(head * 4 + 1, 0.45, f"byte {head + 1}", va="center", fontproperties=font)
    axes.text(
        17, 0.45, "of its forward; one bar below = one forward; no colour = prompt", va="center", fontproperties=font
    )


def _darker(head: int) -> str:
    return ("#3b6fb6", "#3f9142", "#dd8452", "#c44e52", "#8172b3", "#937860", "#2a9d8f", "#777777")[head % 8]

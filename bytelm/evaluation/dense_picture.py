"""One picture that explains a dense code: a text in its words and patches beside UTF-8, and how the words are made."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import get_data_path
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.patches import FancyBboxPatch, Rectangle

from bytelm.encoding import CONTROL_NAMES, DenseEncoding
from bytelm.encoding.view import CodedCharacter, EncodingView
from bytelm.errors import EncodingError
from bytelm.evaluation.plots import japanese_font

MAX_UTF8_BYTES = 40
"""The longest text that is drawn."""

_COLOURS = {
    "stopper": "#5b8ff9",
    "continuer": "#f6a04d",
    "lead": "#8d99ae",
    "trail": "#d5dae3",
    "ascii": "#b7c9b0",
}
_INK, _SOFT, _PAPER = "#1f2933", "#6b7785", "#f3f5f8"
_PATCH_COLOURS = ("#1f2933", "#9aa5b1")
_LEFT, _WIDTH, _HEIGHT = 5.2, 46.0, 23.4


def plot_dense_code(path: Path, view: EncodingView) -> None:
    """Draw the text of a view in its first dense encoding and in UTF-8, and below it the words of that encoding.

    Raises:
        EncodingError: the view has no dense encoding, or its text is empty or longer than ``MAX_UTF8_BYTES``.
    """
    dense = next((encoding for encoding in view.encodings if isinstance(encoding, DenseEncoding)), None)
    if dense is None:
        names = ", ".join(encoding.name for encoding in view.encodings)
        raise EncodingError(f"encodings to draw: found {names}, expected a dense encoding")
    size = len(view.text.encode("utf-8"))
    if not 1 <= size <= MAX_UTF8_BYTES:
        raise EncodingError(f"text to draw: found {size} bytes of UTF-8, expected 1 to {MAX_UTF8_BYTES}")
    lines = EncodingView(view.text, ["utf8", dense], view.patch).coded
    figure = Figure(figsize=(_WIDTH * 0.28, _HEIGHT * 0.28), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
    axes.axis("off")
    _heading(axes, 1.1, f"One text of {len(view.text)} characters in two codes, cut into patches of {view.patch} bytes")
    _text_row(axes, 2.0, "UTF-8", lines[0], view.patch)
    _text_row(axes, 6.9, dense.name, lines[1], view.patch)
    _legend(axes, 11.5)
    _comparison(axes, 8.4, lines[0], lines[1], view.patch)
    _heading(axes, 13.3, f"The words of {dense.name}: the more frequent the character, the shorter its word")
    _word_grid(axes, 14.0, dense)
    figure.savefig(path, dpi=100)


def _heading(axes: Axes, y: float, text: str) -> None:
    _label(axes, 0.7, y, text, fontsize=12.5, fontweight="bold")


def _text_row(axes: Axes, y: float, name: str, line: Sequence[CodedCharacter], patch: int) -> None:
    """Characters, their bytes, and the patches, one byte being one unit wide."""
    size = sum(len(coded.word) for coded in line)
    num_patches = -(-size // patch)
    _label(axes, 0.7, y + 0.75, name, fontsize=11, fontweight="bold")
    _label(axes, 0.7, y + 1.75, f"{size} bytes", fontsize=9, color=_SOFT)
    _label(axes, 0.7, y + 2.6, f"{size / len(line):.2f} per char.", fontsize=9, color=_SOFT)
    _label(axes, 0.7, y + 3.45, f"{num_patches} patches", fontsize=9, color=_SOFT)
    for coded in line:
        x, width = _LEFT + coded.start, len(coded.word)
        _box(axes, x, y, width, 1.5, _PAPER, "#cbd2dc")
        _character(axes, x + width / 2, y + 0.75, coded.character, 13)
        for i, byte in enumerate(coded.word):
            _byte(axes, x + i, y + 1.6, f"{byte:02x}", coded.classes[i])
    for number in range(num_patches):
        begin, end = _LEFT + number * patch, _LEFT + min(size, (number + 1) * patch)
        axes.plot([begin + 0.1, end - 0.1], [y + 3.1] * 2, color=_PATCH_COLOURS[number % 2], linewidth=3.5)
        axes.plot([begin] * 2, [y + 1.4, y + 3.3], color=_INK, linewidth=0.9, linestyle=(0, (2, 2)))
        _label(axes, (begin + end) / 2, y + 3.7, str(number + 1), fontsize=8, color=_SOFT, ha="center")


def _comparison(
    axes: Axes, y: float, utf8: Sequence[CodedCharacter], dense: Sequence[CodedCharacter], patch: int
) -> None:
    """Characters per patch of both codes, in the space that the shorter code leaves."""
    sizes = [sum(len(coded.word) for coded in line) for line in (utf8, dense)]
    if sizes[1] + 15 > MAX_UTF8_BYTES:
        return
    before, after = (patch * len(utf8) / size for size in sizes)
    text = f"{after:.1f} characters in a patch instead of {before:.1f}"
    _label(axes, _LEFT + sizes[1] + 1.2, y, text, fontsize=11)


def _legend(axes: Axes, y: float) -> None:
    entries = (
        ("continuer", "continuer: the word goes on", 9.6),
        ("stopper", "stopper: the word ends here", 9.6),
        ("lead", "UTF-8 lead", 5.0),
        ("trail", "UTF-8 trail", 5.2),
        ("ascii", "UTF-8 ASCII", 5.9),
    )
    x = _LEFT
    for kind, label, width in entries:
        _box(axes, x, y - 0.4, 0.8, 0.8, _COLOURS[kind], "none")
        _label(axes, x + 1.1, y, label, fontsize=9)
        x += width
    _label(axes, x, y, "bar: one patch", fontsize=9)


def _word_grid(axes: Axes, y: float, encoding: DenseEncoding) -> None:
    s, c = encoding.s, encoding.c
    counts = [s * c**k for k in range(4)]
    _caption(axes, 0.7, y + 0.7, "1 byte", f"s = {s} words")
    for i, rank in enumerate((0, 1, 2, 3, 4, None, s - 1)):
        _cell(axes, 0.7 + 1.5 * i, y + 2.6, encoding, rank)
        _byte(axes, 0.95 + 1.5 * i, y + 1.5, "…" if rank is None else f"{rank:02x}", "stopper")

    left = 14.2
    _caption(axes, left, y + 0.7, "2 bytes", f"s · c = {s} · {c} = {counts[1]:,} words")
    columns, rows = (0, 1, 2, 3, 4, None, s - 1), (0, 1, 2, None, c - 1)
    for i, low in enumerate(columns):
        _byte(axes, left + 1.75 + 1.5 * i, y + 1.5, "…" if low is None else f"{low:02x}", "stopper")
    for j, high in enumerate(rows):
        _byte(axes, left, y + 2.85 + 1.3 * j, "…" if high is None else f"{s + high:02x}", "continuer")
        for i, low in enumerate(columns):
            rank = None if low is None or high is None else s + high * s + low
            _cell(axes, left + 1.5 + 1.5 * i, y + 2.6 + 1.3 * j, encoding, rank)

    left = 28.4
    for k, x, what in ((2, left, "a grid for each continuer"), (3, left + 8.3, "and once more")):
        power = "²³"[k - 2]
        _caption(axes, x, y + 0.7, f"{k + 1} bytes", f"s · c{power} = {counts[k]:,} words")
        _sheets(axes, x, y + 1.5, k)
        _label(axes, x, y + 6.6, what, fontsize=9, color=_SOFT)
    note = f"s + c = {s} + {c} = {s + c} of 256 byte values;\nthe other {len(CONTROL_NAMES)} are controls, never text"
    _label(axes, left, y + 8.3, note, fontsize=9, linespacing=1.5)
    _label(
        axes,
        0.7,
        y + 5.0,
        "A word is some continuers\nand one stopper, so a\nreader may start anywhere.",
        fontsize=9,
        color=_INK,
        va="top",
        linespacing=1.5,
    )


def _caption(axes: Axes, x: float, y: float, title: str, text: str) -> None:
    _label(axes, x, y, title, fontsize=10, fontweight="bold")
    _label(axes, x + 2.7, y, text, fontsize=9, color=_SOFT)


def _sheets(axes: Axes, x: float, y: float, num_continuers: int) -> None:
    """A word of some continuers and a stopper, above a stack of grids."""
    for i in range(num_continuers + 1):
        _byte(axes, x + 1.1 * i, y, "", "stopper" if i == num_continuers else "continuer")
    for k in range(3):
        shift = 0.45 * (2 - k)
        _box(axes, x + shift, y + 2.3 - shift, 4.6, 2.3, _PAPER, "#aab4c0")
    for i in range(1, 6):
        axes.plot([x + 4.6 * i / 6] * 2, [y + 2.35, y + 4.55], color="#cbd2dc", linewidth=0.7)
    for j in range(1, 4):
        axes.plot([x + 0.05, x + 4.55], [y + 2.3 + 2.3 * j / 4] * 2, color="#cbd2dc", linewidth=0.7)


def _cell(axes: Axes, x: float, y: float, encoding: DenseEncoding, rank: int | None) -> None:
    _box(axes, x, y, 1.5, 1.3, "white", "#cbd2dc", rounding=0.0)
    if rank is None:
        _label(axes, x + 0.75, y + 0.65, "…", fontsize=9, color=_SOFT, ha="center")
    elif rank < len(encoding.ranked):
        _character(axes, x + 0.75, y + 0.65, encoding.ranked[rank], 11)


def _byte(axes: Axes, x: float, y: float, text: str, kind: str) -> None:
    _box(axes, x + 0.04, y, 0.92, 0.95, _COLOURS[kind], "none", rounding=0.12)
    _label(axes, x + 0.5, y + 0.48, text, fontsize=7.5, family="monospace", ha="center")


def _label(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, text, **{"family": "DejaVu Sans", "color": _INK, "va": "center", "parse_math": False, **style})


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, face: str, edge: str, rounding: float = 0.2
) -> None:
    if rounding == 0.0:
        axes.add_patch(Rectangle((x, y), width, height, facecolor=face, edgecolor=edge, linewidth=0.8))
        return
    style = f"round,pad=0,rounding_size={rounding}"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=face, edgecolor=edge, linewidth=0.8))


def _character(axes: Axes, x: float, y: float, character: str, size: float) -> None:
    shown = {" ": "␣", "\n": "⏎", "\t": "⇥", "\u3000": "□"}.get(character, character)
    font = next((font for font in _fonts() if ord(shown) in font[1]), None)
    if font is None:
        _label(axes, x, y, f"{ord(character):X}", fontsize=size / 2, color=_SOFT, ha="center")
        return
    properties = FontProperties(fname=font[0], size=size)
    axes.text(x, y, shown, color=_INK, ha="center", va="center", fontproperties=properties, parse_math=False)


@functools.cache
def _fonts() -> tuple[tuple[str, frozenset[int]], ...]:
    """Font files that come with dependencies of the package, and the scalar values that each can draw."""
    files = str(japanese_font(1).get_file()), f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    return tuple((file, frozenset(FT2Font(file).get_charmap())) for file in files)

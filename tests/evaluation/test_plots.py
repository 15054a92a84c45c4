"""Pictures: what goes into each cell is checked; that a PNG comes out is checked too."""

import numpy as np
import pytest

from bytelm.encoding import get_encoding, list_encodings
from bytelm.evaluation.plots import _cells, japanese_font, plot_head_bits, plot_loss, plot_text

TEXT = "山と🙂。\nA"


@pytest.mark.parametrize("name", list_encodings())
def test_every_symbol_lands_in_the_cell_of_its_character(name):
    encoding = get_encoding(name)
    symbols = np.concatenate((encoding.encode(TEXT), np.frombuffer(encoding.controls["<|eos|>"], np.uint8)))
    forwards, offsets = np.arange(len(symbols)) // 4, np.arange(len(symbols)) % 4
    cells = _cells(encoding, "問", symbols, forwards, offsets)
    assert [text for text, _, _ in cells] == ["問", *TEXT, "■"]
    assert [f for _, fs, _ in cells for f in fs] == forwards.tolist()
    assert [o for _, _, os in cells for o in os] == offsets.tolist()
    assert [len(fs) for _, fs, _ in cells[1:-1]] == [len(encoding.encode(c)) for c in TEXT]


def test_a_cut_character_is_shown_as_replacement():
    encoding = get_encoding("utf8")
    symbols = encoding.encode("山")[:2]
    assert [t for t, _, _ in _cells(encoding, "", symbols, np.zeros(2, int), np.arange(2))] == ["\ufffd"]


def test_pictures_are_written(tmp_path):
    encoding = get_encoding("dense-ja")
    symbols = encoding.encode(TEXT * 20)
    order = np.arange(len(symbols))
    plot_text(tmp_path / "text.png", encoding, [("問い", symbols, order // 4, order % 4)])
    plot_loss(tmp_path / "loss.png", [(1, 5.0), (2, 4.0)], [(2, 6.0)])
    plot_head_bits(tmp_path / "heads.png", {1: [5.0, 5.5], 2: [4.0, 4.5]})
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 3


def test_the_font_comes_with_the_package_and_has_japanese_glyphs():
    from matplotlib.ft2font import FT2Font

    glyphs = FT2Font(japanese_font(10).get_file()).get_charmap()
    assert all(ord(c) in glyphs for c in "山ひラ、。Aa1")

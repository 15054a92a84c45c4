"""The view says what the encodings do: bytes, classes and patches agree with them, and the table is aligned."""

import html
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import bytelm
from bytelm.encoding import DenseEncoding, get_encoding, list_encodings
from bytelm.encoding.view import EncodingView, byte_classes
from bytelm.errors import ConfigError, EncodingError

TEXT = "日本三景: 1. 宮島 🗻é\u0301\n\U0010ffff"
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def classes(name: str, text: str) -> list[tuple[str, ...]]:
    return [coded.classes for coded in EncodingView(text, [name]).coded[0]]


def test_classes_by_family():
    assert classes("utf8", "aé月🗻") == [
        ("ascii",),
        ("lead", "trail"),
        ("lead", "trail", "trail"),
        ("lead", "trail", "trail", "trail"),
    ]
    high, low = ("high surrogate",) * 2, ("low surrogate",) * 2
    assert classes("utf16", "a月🗻") == [("unit",) * 2, ("unit",) * 2, high + low]
    assert classes("utf32", "a") == [("unit",) * 4]
    rare = "\U0010ffff"
    assert classes("ranked2", f"月{rare}") == [("unit",) * 2, ("lead unit",) * 2 + ("trail unit",) * 2]
    assert classes("dense-ja", f"の{rare}") == [("stopper",), ("continuer",) * 3 + ("stopper",)]


def test_dense_classes_are_those_of_the_code():
    encoding = get_encoding("dense-ja")
    assert isinstance(encoding, DenseEncoding)
    for rank in (0, encoding.s - 1, encoding.s, encoding.s * (encoding.c + 1)):
        word = encoding.encode(encoding.ranked[rank]).tobytes() if rank < len(encoding.ranked) else b""
        for byte, name in zip(word, byte_classes(encoding, word), strict=True):
            assert (name == "stopper") == (byte < encoding.s)


@given(text=ANY_TEXT, patch=st.integers(1, 9))
def test_words_and_patches_are_the_encoded_text(text, patch):
    for name, entry in zip(list_encodings(), EncodingView(text, list_encodings(), patch).describe(), strict=True):
        data = get_encoding(name).encode(text).tobytes()
        assert "".join(coded["word"] for coded in entry["characters"]) == "".join(entry["patches"]) == data.hex()
        assert [coded["character"] for coded in entry["characters"]] == list(text)
        for coded in entry["characters"]:
            first, last = coded["first_patch"] * patch, (coded["last_patch"] + 1) * patch
            assert first <= coded["start"] < coded["start"] + len(coded["word"]) // 2 <= last
            assert len(coded["classes"]) == len(coded["word"]) // 2


def test_the_table_is_aligned_and_fits():
    lines = str(EncodingView(TEXT)).splitlines()
    table = lines[: len(TEXT) + 1]
    scalars = [cell_len(line[: line.index("U+")]) for line in table[1:]]
    names = [cell_len(line[: line.index(name)]) for line, name in zip(table, ["name", "CJK", "CJK"], strict=False)]
    assert len(set(scalars)) == len(set(names)) == 1
    assert max(map(cell_len, table)) <= 130
    assert max(map(cell_len, str(EncodingView("日本三景: 1. 宮島 🗻")).splitlines()[:14])) <= 120
    assert "◌\u0301" in table[-3]
    assert table[-2].startswith("\\n  ")
    assert table[-1].startswith("·  ")
    assert lines[-1].startswith("utf16: ")
    assert "C continuer" in lines[-4]
    assert str(EncodingView("", ["utf8"])).splitlines()[-1] == "utf8: 0 characters, 0 bytes, 0 patches of 4"


def test_html_is_escaped_and_holds_every_byte():
    page = EncodingView("<b>&🗻", ["utf8"], patch=3)._repr_html_()
    assert "<b>" not in page
    assert "<script" not in page
    assert "&lt;" in page
    assert re.findall(r">([0-9a-f]{2})<sub>", page) == ["3c", "62", "3e", "26", "f0", "9f", "97", "bb"]
    assert page.count("2px solid currentColor") == 3
    assert "2px solid transparent" in page
    opened, closed = re.findall(r"<(\w+)(?: [^>]*)?>", page), re.findall(r"</(\w+)>", page)
    assert sorted(tag for tag in opened if tag != "br") == sorted(closed)
    assert html.unescape(page).count("🗻") == 1


@given(text=ANY_TEXT)
def test_any_text_has_a_table_and_html(text):
    view = EncodingView(text)
    assert len(str(view).splitlines()) == 1 + len(text) + bool(text) + 3
    assert view._repr_html_().count("<tr>") == 1 + len(text)


def test_refuses():
    with pytest.raises(ConfigError, match="patch: found 0"):
        EncodingView("a", patch=0)
    with pytest.raises(EncodingError, match="found none"):
        EncodingView("a", [])
    with pytest.raises(EncodingError, match="'utf9'"):
        EncodingView("a", "utf9")
    with pytest.raises(EncodingError, match=r"U\+D800"):
        EncodingView("a\ud800")


def test_the_view_is_public_and_needs_no_torch():
    assert bytelm.EncodingView is EncodingView
    code = (
        "import sys, bytelm; view = bytelm.EncodingView('月'); view._repr_html_(); "
        "assert not {'torch', 'rich', 'matplotlib'} & set(sys.modules); str(view); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Any file goes through an encoding and comes back, valid UTF-8 or not."""

import pytest
from byte_strategies import BORDERS, ENCODINGS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bytelm.encoding import ESCAPES
from bytelm.encoding.reference import reference_coder
from bytelm.errors import EncodingError

pytestmark = pytest.mark.usefixtures("kernel")
any_encoding = st.sampled_from(ENCODINGS)
files = st.binary() | st.lists(st.sampled_from(BORDERS)).map(bytes) | st.text().map(str.encode)


@given(any_encoding, files)
@example(ENCODINGS[0], b"\xed\xb2\x80")  # the word of an escaped byte in utf8 is itself no UTF-8
@settings(deadline=None, max_examples=300)
def test_any_file_comes_back(encoding, file):
    text = file.decode("utf-8", "surrogateescape")
    data = encoding.encode(text, "surrogateescape")
    assert encoding.decode(data, "surrogateescape") == text
    assert encoding.decode(data, "surrogateescape").encode("utf-8", "surrogateescape") == file
    assert data.tobytes() == reference_coder(encoding).encode(text, "surrogateescape")
    assert encoding.complete(data) == len(data)


def test_every_escape_has_a_word_of_its_own(encoding):
    words = {encoding.encode(chr(escape), "surrogateescape").tobytes() for escape in ESCAPES}
    assert len(words) == 128
    for word in words:
        assert encoding.decode(word, "replace") == "\ufffd"
        assert len(encoding.parse(word)[0]) == 1


def test_escaped_bytes_are_no_text(encoding):
    data = encoding.encode("a\udcffb", "surrogateescape")
    with pytest.raises(EncodingError, match="the escaped byte ff, which is not text"):
        encoding.decode(data)
    assert encoding.decode(data, "replace") == "a\ufffdb"
    with pytest.raises(EncodingError, match=r"text index 1: found the lone surrogate U\+DCFF"):
        encoding.encode("a\udcffb")


@given(any_encoding, st.text(), st.characters(categories=["Cs"]), st.text())
@settings(deadline=None)
def test_other_surrogates_are_refused_with_their_index(encoding, before, surrogate, after):
    text = before + surrogate + after
    for errors in ("strict", "surrogateescape"):
        if errors == "surrogateescape" and ord(surrogate) in ESCAPES:
            assert encoding.decode(encoding.encode(text, errors), errors) == text
        else:
            with pytest.raises(EncodingError, match=rf"text index {len(before)}: .*U\+{ord(surrogate):04X}"):
                encoding.encode(text, errors)


def test_malformed_bytes_are_refused_in_escaping_mode_too(encoding):
    with pytest.raises(EncodingError, match="byte offset 0: "):
        encoding.decode(encoding.controls["<|eos|>"], "surrogateescape")


def test_escaping_is_no_way_to_encode_otherwise(encoding):
    with pytest.raises(EncodingError, match="errors: found 'replace', expected one of 'strict', 'surrogateescape'"):
        encoding.encode("a", "replace")

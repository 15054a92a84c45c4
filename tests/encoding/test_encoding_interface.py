"""What callers rely on besides the mapping: digests, dicts, pickles, accepted data, error text."""

import json
import pickle

import numpy as np
import pytest

from bytelm.encoding import CONTROL_NAMES, DenseEncoding, encoding_from_dict, get_encoding
from bytelm.errors import EncodingError

DIGESTS = {
    "utf8": "d51a8c5148a883266e5ffdb8ddba86c60952f7fc8d92e8a95a2b96fc33acac1a",
    "utf16": "1a2a23fe82ae11e80a0c14078628be430093c8ca5f3e60c966283bfccd79ccad",
    "utf32": "2366e8e22627aed401be87e7b3ab5963bc24c5cf67bfd581718358fd06c6b421",
    "ranked2": "de20f261938d152f9743b7b64202727b94d5e958ddff948be5ba407d58fe1375",
    "dense-ja": "fff63de504fe5b4333e5c4e3b3e2a559a7ff930b61ec52041b9214d9ce90ea42",
    "dense-mul": "b5a8c0382f74b2d9da59de7dbc4499179b73784f3a201770644462b744783f08",
}


def test_digests_are_pinned(encoding):
    """A corpus or checkpoint names its table by this digest: it may never change under an old name."""
    assert encoding.digest == DIGESTS[encoding.name]


def test_the_digest_covers_every_word():
    base = DenseEncoding("a", 200, 48, "月火水")
    assert DenseEncoding("b", 200, 48, "月火水").digest == base.digest
    last_two_swapped = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x10FFFE), 0x10FFFF, 0x10FFFE]))
    for s, ranked in [(200, "月水火"), (201, "月火水"), (200, "月火")]:
        assert DenseEncoding("a", s, 248 - s, ranked).digest != base.digest
    assert DenseEncoding("a", 200, 48, last_two_swapped).digest != DenseEncoding("a", 200, 48, "").digest


def test_names_units_and_longest_words():
    facts = {name: (get_encoding(name).unit, get_encoding(name).max_word) for name in DIGESTS}
    assert facts == {
        "utf8": (1, 4),
        "utf16": (2, 4),
        "utf32": (4, 4),
        "ranked2": (2, 4),
        "dense-ja": (1, 4),
        "dense-mul": (1, 4),
    }


def test_dict_and_pickle_rebuild_the_encoding(encoding):
    text = json.dumps(encoding.to_dict())
    assert len(text) < 60_000
    for rebuilt in (encoding_from_dict(json.loads(text)), pickle.loads(pickle.dumps(encoding))):
        assert rebuilt == encoding
        assert hash(rebuilt) == hash(encoding)
        assert rebuilt.decode(encoding.encode("再び、組み立てる。")) == "再び、組み立てる。"


def test_encodings_differ_and_say_who_they_are():
    encodings = [get_encoding(name) for name in DIGESTS]
    assert len(set(encodings)) == len(DIGESTS)
    assert "dense-mul" in repr(encodings[-1])
    assert encodings[0] != "utf8"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, "format_version 1, expected 2"),
        ({"family": "morse"}, "found family 'morse', expected one of utf8"),
        ({"s": 230, "c": 18}, "digest"),
        ({"s": 230}, "s = 230, c = 17"),
        ({"s": "231"}, "s: found '231', expected a value of type int"),
        ({"ranked": None}, "ranked: found None"),
        ({"ranked": ["の", "の"]}, r"U\+306E more than once"),
        ({"ranked": "のに"}, "ranked: found 'のに', expected a value of type list"),
        ({"ranked": ["の", 3]}, "expected strings"),
        ({"ranked": ["の\ud800"]}, r"lone surrogate U\+D800"),
        ({"name": 3}, "name: found 3"),
        ({"digest": "00"}, "digest: found '00'"),
        ({"controls": {}}, "controls"),
    ],
)
def test_a_damaged_dict_is_refused(change, message):
    with pytest.raises(EncodingError, match=message):
        encoding_from_dict({**get_encoding("dense-ja").to_dict(), **change})


@pytest.mark.parametrize(("s", "c"), [(0, 248), (248, 0), (240, 8), (232, 16), (200, 56), (249, -1)])
def test_impossible_dense_codes_are_refused(s, c):
    with pytest.raises(EncodingError, match=f"s = {s}, c = {c}"):
        DenseEncoding("impossible", s, c, "")


@pytest.mark.parametrize("s", [1, 40, 83, 128, 231])
def test_every_shape_of_dense_code_covers_unicode(s):
    """From words of two and three bytes up to as many stoppers as possible."""
    dense = DenseEncoding("shape", s, 248 - s, "空と海")
    text = "".join(map(chr, [*range(0, 0xD800, 7), *range(0xE000, 0x110000, 61)]))
    assert dense.decode(dense.encode(text)) == text
    assert dense.max_word == int(dense.lengths.max())
    assert dense.encode("空").tobytes() == b"\0"


def test_controls_are_ordered_and_read_only(encoding):
    assert tuple(encoding.controls) == CONTROL_NAMES
    with pytest.raises(TypeError):
        encoding.controls["<|pad|>"] = b"x"
    with pytest.raises(ValueError, match="read-only"):
        encoding.words[0] = 1


def test_encoded_arrays_are_writable(encoding):
    for text in ("", "あ", "a" * 10):
        data = encoding.encode(text)
        assert data.flags.writeable
        data[:] = 0


def test_every_kind_of_byte_data_is_read_alike(encoding):
    data = encoding.encode("どの形でも同じ")
    wide = np.stack([data, data], axis=1)
    forms = [data, data.tobytes(), bytearray(data), data.tolist(), data.astype(np.int64), wide[:, 0]]
    forms += [memoryview(data), memoryview(wide[:, 0])]
    for form in forms:
        assert encoding.decode(form) == "どの形でも同じ"
        assert encoding.complete(form) == len(data)
        assert encoding.char_starts(form).sum() == 7
    for empty in (b"", [], np.empty(0, np.uint8)):
        assert encoding.decode(empty) == ""
        assert encoding.parse(empty)[0].shape == (0,)
        assert encoding.complete(empty) == 0
    assert encoding.encode("").shape == (0,)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([65, 256], "byte offset 1: found 256, expected an integer 0..255"),
        (np.array([-1]), "byte offset 0: found -1"),
        (np.array([0.5]), "float64"),
        (np.zeros((2, 2), np.uint8), "2 dimensions, expected 1"),
    ],
)
def test_what_is_no_byte_data_is_refused(encoding, data, message):
    with pytest.raises(EncodingError, match=message):
        encoding.decode(data)


def test_messages_name_offset_bytes_and_reason():
    utf8 = get_encoding("utf8")
    for data, message in [
        (b"abc\xc0", "byte offset 3: found c0, not a code word; expected a code word of utf8"),
        (b"\xe3\x81", "byte offset 0: found e3 81, an unfinished code word; expected a code word of utf8"),
        (b"a\xfa", "byte offset 1: found fa, control <|eos|>, which is not text; expected a code word of utf8"),
    ]:
        with pytest.raises(EncodingError) as caught:
            utf8.decode(data)
        assert str(caught.value) == message


def test_bytes_per_character(encoding):
    text = "日本語の文と English."
    counts = np.bincount([ord(character) for character in text], minlength=0x110000)
    assert encoding.bytes_per_character(counts) == pytest.approx(len(encoding.encode(text)) / len(text))

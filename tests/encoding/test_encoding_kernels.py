"""The native core and numpy are one encoder; batches are their rows."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from byte_strategies import ENCODINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.encoding import get_encoding, kernels
from bytelm.encoding.automaton import ILLEGAL, build_trie
from bytelm.errors import EncodingError

NATIVE = kernels._native
any_encoding = st.sampled_from(ENCODINGS)
widths = st.text(st.characters(max_codepoint=0x7F)) | st.text(st.characters(max_codepoint=0xFF)) | st.text()
needs_native = pytest.mark.skipif(NATIVE is None, reason="the native core was not built")


@needs_native
@given(any_encoding, widths)
@settings(deadline=None, max_examples=200)
def test_both_encode_alike(encoding, text):
    native = kernels.encode(text, encoding.words, encoding.lengths, escapes=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_native", None)
        assert np.array_equal(kernels.encode(text, encoding.words, encoding.lengths, escapes=False), native)


@needs_native
@given(any_encoding, widths, st.integers(0, 6))
@settings(deadline=None, max_examples=200)
def test_native_decoding_gives_a_normal_str_or_nothing(encoding, text, cut):
    data = encoding.encode(text)
    trie = encoding.trie
    decoded = kernels.decode(data, trie, encoding.unit)
    assert decoded == text
    assert decoded is not None
    if len(text) != 1:  # those of one character are shared, and may keep their UTF-8 beside them
        assert sys.getsizeof(decoded) == sys.getsizeof("".join(list(text)))  # of the narrowest kind, not longer
    assert hash(decoded) == hash(text)
    cut = min(cut, len(data))
    part = data[: len(data) - cut]
    expected = encoding.decode(part) if encoding.complete(part) == len(part) else None
    assert kernels.decode(part, trie, encoding.unit) == expected


@needs_native
def test_the_str_grows_from_kind_to_kind():
    dense = get_encoding("dense-ja")
    for text in ["a" * 5000 + "é" * 5000 + "月" * 5000 + "🗻" * 5000 + "a", "🗻" + "a" * 20_000, "a" * 4096 + "é"]:
        decoded = dense.decode(dense.encode(text))
        assert decoded == text
        assert sys.getsizeof(decoded) == sys.getsizeof("".join(list(text)))


@needs_native
def test_the_core_refuses_arrays_of_the_wrong_size():
    utf16 = get_encoding("utf16")
    words, lengths = utf16.words, utf16.lengths
    out, ends = np.empty(8, np.uint8), np.empty(1, np.int64)
    with pytest.raises(ValueError, match="0x110000"):
        NATIVE.encode_large("a", words[:10], lengths, False)
    with pytest.raises(ValueError, match="0x110000"):
        NATIVE.encode(["a"], words, lengths[1:], False, out, ends)
    with pytest.raises(ValueError, match="room for 4 bytes of every character"):
        NATIVE.encode(["abc"], words, lengths, False, out, ends)
    with pytest.raises(ValueError, match="ends must have an entry"):
        NATIVE.encode(["a", "b"], words, lengths, False, out, ends)
    with pytest.raises(TypeError, match="text 0: found int, expected str"):
        NATIVE.encode([3], words, lengths, False, out, ends)


def test_a_trie_by_hand():
    words = np.array([0x41000000, 0x42410000, 0x42424344], np.uint64)
    trie = build_trie(words, np.array([1, 2, 4], np.uint8), np.array([7, 8, 9], np.int32))
    assert trie.shape == (4, 256)
    assert trie[0, 0x41] == 7
    assert trie[-trie[0, 0x42], 0x41] == 8
    node = -trie[-trie[0, 0x42], 0x42]
    assert trie[-trie[node, 0x43], 0x44] == 9
    assert (trie == ILLEGAL).sum() == 4 * 256 - 6


@pytest.mark.usefixtures("kernel")
class TestBatches:
    @given(any_encoding, st.lists(st.text(max_size=12), max_size=12))
    @settings(deadline=None)
    def test_batches_are_their_rows(self, encoding, texts):
        rows = encoding.encode_batch(texts)
        assert [row.tolist() for row in rows] == [encoding.encode(text).tolist() for text in texts]
        assert all(row.flags.writeable and row.dtype == np.uint8 for row in rows)
        assert encoding.decode_batch(rows) == texts

    def test_errors_name_the_row(self, encoding):
        with pytest.raises(EncodingError, match=r"^text 1: text index 2: found the lone surrogate U\+D812"):
            encoding.encode_batch(["よい", "悪い\ud812", "\ud812"])
        with pytest.raises(EncodingError, match=r"^row 1: byte offset 0: "):
            encoding.decode_batch([encoding.encode("よい"), encoding.controls["<|eos|>"]])

    @pytest.mark.parametrize("unit", ["あ日本語の文。", "ascii text ", "絵🗻文字🐟"])
    def test_memory_stays_within_six_times_the_text(self, encoding, unit):
        text = unit * (1_500_000 // len(unit))
        size = len(text.encode("utf-8"))
        data = encoding.encode(text)
        encoding.decode(data[: encoding.complete(data[:1000])])  # tables that are built on first use
        for work in (lambda: encoding.encode(text), lambda: encoding.decode(data)):
            tracemalloc.start()
            work()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 6 * size + (1 << 20)


def test_the_native_core_can_be_left_out():
    code = "import bytelm.encoding as e; print(e.kernel_name()); assert e.get_encoding('utf16').encode('月').size == 2"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"BYTELM_KERNEL": "numpy"}, check=False
    )
    assert (done.stdout, done.stderr) == ("numpy\n", "")

"""The encoding benchmark measures what it says, on tiny texts; no figure that depends on the clock is asserted."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from bytelm.benchmarks import (
    Coder,
    encoding_coder,
    measure_coding,
    measure_memory,
    python_codec,
    repeat_text,
    rival_coders,
)
from bytelm.benchmarks import coders as coders_module
from bytelm.encoding import get_encoding, list_encodings
from bytelm.errors import ConfigError, EncodingError
from bytelm.evaluation.encoding_plots import plot_coding_speed

TEXT = "朝の港で、🐟を買う。It's 9:40, two  lines\n\tand 3 tabs.\n" * 40
GPT2 = Path(__file__).parents[3] / "shared" / "data" / "gpt2_bpe"


def has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def byte_level_vocabulary(folder: Path) -> Path:
    """A vocabulary in GPT-2's format: the 256 bytes in its order, and three merges."""
    shown = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    hidden = [b for b in range(256) if b not in shown]
    symbols = [chr(b) for b in shown] + [chr(256 + i) for i in range(len(hidden))]
    merges = [("t", "w"), ("tw", "o"), ("Ġ", "two")]
    vocabulary = [*symbols, *("".join(pair) for pair in merges)]
    (folder / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate(vocabulary)}), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_every_coder_is_measured_on_the_same_text():
    measured = [python_codec(), *(encoding_coder(get_encoding(name)) for name in list_encodings())]
    rows = measure_coding(measured, TEXT, repeats=2, seconds=1e9)
    assert [row.name for row in rows] == ["str.encode", *list_encodings()]
    for row in rows:
        assert (row.utf8_bytes, row.exact) == (len(TEXT.encode()), True)
        assert min(row.encode_mb_per_second, row.decode_mb_per_second, row.strings_per_second) > 0
        assert (row.encode_ratios, row.decode_ratios) == ({}, {})
    for row in rows[1:]:
        assert row.symbols_per_character == len(get_encoding(row.name).encode(TEXT)) / len(TEXT)


def test_the_slow_get_less_of_the_text_and_references_are_their_own_measure():
    text = repeat_text(TEXT, 200_000)
    slow = Coder("tiktoken", "rival", lambda t: t.encode(), lambda b: b.decode())
    row, other = measure_coding([slow, encoding_coder(get_encoding("utf32"))], text, repeats=1, seconds=1e-9)
    assert row.utf8_bytes == other.utf8_bytes < len(text.encode())
    assert (row.encode_ratios, row.decode_ratios) == ({"tiktoken": 1.0}, {"tiktoken": 1.0})
    assert other.encode_ratios["tiktoken"] > 0


def test_batches_are_used_where_they_exist():
    calls = []

    def batch(texts):
        calls.append(len(texts))
        return [text.encode() for text in texts]

    coder = Coder("mine", "encoding", lambda t: t.encode(), lambda b: b.decode(), batch)
    measure_coding([coder], "あ" * 95, repeats=1)
    assert calls == [4, 4, 4]


def test_a_rival_that_loses_text_is_marked_and_an_encoding_that_does_is_an_error():
    def lossy(kind):
        return Coder("lossy", kind, lambda t: t.replace("🐟", "?").encode(), lambda b: b.decode())

    assert measure_coding([lossy("rival")], TEXT, repeats=1)[0].exact is False
    with pytest.raises(EncodingError, match="lossy: found another text"):
        measure_coding([lossy("encoding")], TEXT, repeats=1)


def test_memory_is_that_of_the_call_with_its_result():
    def encode(text):
        kept = text.encode()
        return bytearray(3 * len(kept))

    coder = Coder("mine", "encoding", encode, lambda data: "x" * (len(data) // 3))
    (entry,) = measure_memory([coder], {"ascii": "x" * 1_000_000})
    assert (entry.name, entry.text, entry.utf8_bytes) == ("mine", "ascii", 1_000_000)
    assert entry.encode == pytest.approx(4, abs=0.01)
    assert entry.decode == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("size", [1, 3, 4, 10, 57])
def test_repeated_text_has_the_size_in_whole_characters(size):
    text = repeat_text("a🗻", size)
    assert ("a🗻" * size).startswith(text)
    assert size - 4 < len(text.encode()) <= size


def test_repeated_text_refuses():
    with pytest.raises(EncodingError, match="no character"):
        repeat_text("", 10)
    with pytest.raises(EncodingError, match="size of 3 bytes"):
        repeat_text("🗻", 3)


def test_rivals_code_the_text(tmp_path):
    found, skipped = rival_coders(TEXT, byte_level_vocabulary(tmp_path))
    installed = {name for name in ("tiktoken", "tokenizers", "sentencepiece") if has(name)}
    assert installed <= {coder.name for coder in found}
    assert {entry.name for entry in skipped}.isdisjoint(coder.name for coder in found)
    for coder in found:
        assert coder.decode(coder.encode(TEXT)) == TEXT, coder.name
        if coder.encode_batch is not None:
            assert list(coder.encode_batch([TEXT, "a"])) == [coder.encode(TEXT), coder.encode("a")]


def test_rivals_without_files_or_not_installed_are_skipped(monkeypatch):
    found, skipped = rival_coders(TEXT, None)
    assert {"tiktoken", "tokenizers"} <= {entry.name for entry in skipped}
    assert all(entry.reason for entry in skipped)

    for name in ("tiktoken", "tokenizers", "transformers", "sentencepiece"):
        monkeypatch.setitem(sys.modules, name, None)
    found, skipped = rival_coders(TEXT, None)
    assert found == []
    assert [entry.name for entry in skipped] == ["tiktoken", "tokenizers", "byt5", "sentencepiece"]
    assert "import of transformers halted" in skipped[2].reason


def test_vocabularies_that_are_missing_or_damaged_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"vocab\.json: no such file"):
        rival_coders(TEXT, tmp_path)
    byte_level_vocabulary(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    if has("tiktoken"):
        with pytest.raises(ConfigError, match="refuses"):
            rival_coders(TEXT, tmp_path)


def test_two_makers_of_one_vocabulary_must_agree():
    first = Coder("tiktoken", "rival", lambda t: [1, 2, 3], str)
    second = Coder("tokenizers", "rival", lambda t: [1, 5, 3], str)
    with pytest.raises(EncodingError, match=r"token 1: found \[5, 3\] by tokenizers, expected \[2, 3\]"):
        coders_module._check_agreement({"tiktoken": first, "tokenizers": second}, "x")


@pytest.mark.skipif(not (GPT2.is_dir() and has("tiktoken")), reason="needs tiktoken and GPT-2's vocabulary")
def test_gpt2_ids_are_those_everyone_knows():
    coder = {coder.name: coder for coder in rival_coders(TEXT, GPT2)[0]}["tiktoken"]
    assert coder.encode("Hello, world! It's 2019.") == [15496, 11, 995, 0, 632, 338, 13130, 13]


def test_the_environment_is_as_before(monkeypatch):
    monkeypatch.setenv("RAYON_NUM_THREADS", "7")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    with coders_module.one_thread():
        assert coders_module.os.environ["RAYON_NUM_THREADS"] == "1"
    assert coders_module.os.environ["RAYON_NUM_THREADS"] == "7"
    assert "TOKENIZERS_PARALLELISM" not in coders_module.os.environ


def test_the_plot_is_a_picture(tmp_path):
    rows = [("str.encode", "ceiling", 900.0, 500.0), ("dense-ja", "encoding", 90.0, 30.0), ("x", "rival", 0.5, 3.0)]
    plot_coding_speed(tmp_path / "speed.png", rows, "a text")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")

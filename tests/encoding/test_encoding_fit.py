"""Counting characters and fitting a dense code."""

import json
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bytelm.encoding import count_characters, fit, fit_dense, get_encoding, read_table, write_table
from bytelm.errors import EncodingError

SHARED = Path(__file__).parents[3] / "shared" / "data"


@given(st.lists(st.text()), st.integers(3, 20))
@settings(deadline=None, max_examples=20)
def test_counts_are_those_of_a_counter(texts, batch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_BATCH", batch)
        counts = count_characters(iter(texts))
    expected = Counter("".join(texts))
    assert {chr(point): int(counts[point]) for point in np.flatnonzero(counts)} == dict(expected)


def test_counting_names_the_text_with_a_surrogate():
    with pytest.raises(EncodingError, match="text 1: text index 2: "):
        count_characters(["よい", "悪い\ud812"])


def slow_total(counts: dict[str, int], order: list[str], s: int, c: int) -> int:
    """Bytes of a text with these counts, one character at a time."""
    total = 0
    for rank, character in enumerate(order):
        length, size, end = 1, s, s
        while rank >= end:
            length, size = length + 1, size * c
            end += size
        total += length * counts.get(character, 0)
    return total


def skewed_counts(size: int, power: float, first: int) -> dict[str, int]:
    """``size`` characters whose counts fall with a power of their rank."""
    return {chr(first + k): 2 + int(1000 * (k + 1) ** -power) for k in range(size)}


few = st.builds(skewed_counts, st.integers(1, 500), st.floats(0, 2.5), st.sampled_from([0x41, 0x3041, 0x4E00]))


@given(few)
@example(skewed_counts(5000, 0.0, 0x4E00))  # enough for words of three bytes to decide
@settings(deadline=None, max_examples=6)
def test_fit_ranks_by_frequency_and_finds_the_best_s(counts):
    dense = fit_dense(counts, "fitted")
    order = sorted(counts, key=lambda character: (-counts[character], character))
    assert dense.ranked == "".join(order)
    totals = {
        s: slow_total(counts, order, s, 248 - s)
        for s in range(1, 249)
        if sum(s * (248 - s) ** k for k in range(4)) >= 1_112_064
    }
    assert min(totals.values()) == totals[dense.s]
    assert dense.s == min(s for s in totals if totals[s] == totals[dense.s])
    table = np.zeros(0x110000, np.int64)
    for character, count in counts.items():
        table[ord(character)] = count
    assert dense.bytes_per_character(table) == pytest.approx(totals[dense.s] / sum(counts.values()))
    assert fit_dense(table, "fitted") == dense


def test_rare_characters_stay_out_of_the_table_but_count_for_s():
    """250 characters seen once weigh on s through the ranks that the rule gives them."""
    counts = {"の": 3, "に": 2, "は": 2} | {chr(0x100 + k): 1 for k in range(250)}
    dense = fit_dense(counts, "rare")
    assert dense.ranked == "のには"
    by_rule = ["の", "に", "は", *map(chr, range(0x1000))]
    totals = {s: slow_total(counts, by_rule, s, 248 - s) for s in range(1, 232)}
    assert totals[dense.s] == min(totals.values())
    assert len(fit_dense(counts, "all", min_count=1).ranked) == 253


def test_the_fitted_code_is_a_full_encoding(tmp_path):
    text = "春はあけぼの、と書き出した人の机にも、朝の光は同じように届いたはずだ。" * 3
    dense = fit_dense(count_characters([text]), "morning")
    assert dense.encode(text).size == len(text)
    write_table(dense, tmp_path / "morning.json")
    assert read_table(tmp_path / "morning.json") == dense
    assert [path.name for path in tmp_path.iterdir()] == ["morning.json"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no characters"),
        ({"ab": 3}, "'ab': 3, expected single characters"),
        ({"a": -1}, "'a': -1"),
        ({"\ud800": 2}, r"U\+D800"),
        (np.ones(5, np.int64), r"shape \(5,\)"),
        (np.ones(0x110000, np.int64), "0 for surrogates"),
    ],
)
def test_counts_that_mean_nothing_are_refused(counts, message):
    with pytest.raises(EncodingError, match=message):
        fit_dense(counts, "nothing")


def test_min_count_must_be_positive():
    with pytest.raises(EncodingError, match="min_count: found 0"):
        fit_dense({"a": 2}, "x", min_count=0)


def test_table_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(EncodingError, match=r"missing\.json: "):
        read_table(tmp_path / "missing.json")
    for content, message in [("[1]", "JSON list"), ("{", "Expecting"), ("{}", "format_version None")]:
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(EncodingError, match=rf"bad\.json: .*{message}"):
            read_table(tmp_path / "bad.json")
    with pytest.raises(EncodingError, match=r"table\.json: No such file"):
        write_table(get_encoding("utf8"), tmp_path / "no" / "table.json")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.json"]


def test_the_shipped_table_is_small_and_as_fitted():
    dense = get_encoding("dense-ja")
    source = Path(fit.__file__).parent / "tables" / "dense-ja.json"
    assert source.stat().st_size < 40_000
    assert set(json.loads(source.read_text(encoding="utf-8"))) == {
        "format_version", "family", "name", "s", "c", "ranked", "controls", "digest",
    }  # fmt: skip
    assert (dense.s, dense.c) == (231, 17)


@pytest.mark.skipif(not (SHARED / "ja_train.jsonl.xz").exists(), reason="the training text is not here")
def test_the_shipped_table_is_what_fitting_the_training_text_gives():
    with lzma.open(SHARED / "ja_train.jsonl.xz", "rt", encoding="utf-8") as lines:
        counts = count_characters(json.loads(line)["text"] for line in lines)
    fitted = fit_dense(counts, "dense-ja")
    assert fitted == get_encoding("dense-ja")
    assert fitted.bytes_per_character(counts) == pytest.approx(1.2115, abs=1e-4)

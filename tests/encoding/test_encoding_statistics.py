"""Statistics of a code, against slow ones; and the proof of an encoding, against broken ones."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bytelm.encoding import (
    DenseEncoding,
    Utf8Encoding,
    code_statistics,
    count_characters,
    get_encoding,
    prove,
)
from bytelm.encoding.statistics import huffman_length
from bytelm.errors import EncodingError


def best_length(counts: list[int], arity: int) -> int:
    """The shortest total over all word lengths that satisfy Kraft's inequality: a prefix code with them exists."""
    if len(counts) == 1:
        return counts[0]
    best = math.inf
    for lengths in itertools.combinations_with_replacement(range(1, len(counts)), len(counts)):
        if sum(arity ** (len(counts) - length) for length in lengths) <= arity ** len(counts):
            best = min(best, sum(n * length for n, length in zip(sorted(counts, reverse=True), lengths, strict=True)))
    return int(best)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(2, 5))
@example([1, 1, 1, 1], 3)  # needs a symbol that stands for nothing
@example([7], 3)
def test_huffman_is_optimal(counts, arity):
    assert huffman_length(counts, arity) == best_length(counts, arity)


@given(st.text(min_size=1).filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text)))
def test_statistics_are_those_of_the_text(text):
    encoding = get_encoding("utf8")
    found = code_statistics(encoding, count_characters([text]))
    words = [character.encode() for character in text]
    assert found.bytes_per_character == pytest.approx(sum(map(len, words)) / len(text))
    assert found.shares == pytest.approx([sum(len(w) == k for w in words) / len(words) for k in (1, 2, 3, 4)])
    entropy = -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values()) / 8
    assert found.entropy == pytest.approx(entropy)
    assert found.entropy <= found.huffman <= found.bytes_per_character + 1e-12
    assert found.huffman_gap == pytest.approx(found.bytes_per_character / found.huffman - 1)
    assert found.entropy_gap == (pytest.approx(found.bytes_per_character / entropy - 1) if entropy else math.inf)


@pytest.mark.parametrize(("distinct", "length"), [(248, 248), (249, 247 + 2 * 2), (495, 247 + 2 * 248)])
def test_the_bound_has_as_many_symbols_as_the_code_has_byte_values(distinct, length):
    """One character more than there are byte values: one byte value begins the two words of two bytes."""
    text = "".join(map(chr, range(0x4E00, 0x4E00 + distinct)))
    found = code_statistics(get_encoding("dense-ja"), count_characters([text]))
    assert found.huffman * distinct == pytest.approx(length)


def test_nothing_to_measure_on():
    with pytest.raises(EncodingError, match="utf8: found no characters"):
        code_statistics(get_encoding("utf8"), np.zeros(0x110000, np.int64))


def test_proof_of_every_encoding(encoding):
    proof = prove(encoding)
    assert proof.scalars + proof.escapes == sum(proof.words_by_length) == 1_112_064 + 128
    assert proof.digest == encoding.digest
    assert prove(encoding, json.loads(json.dumps(encoding.to_dict()))) == proof


class Broken(DenseEncoding):
    """A dense code in which ``change`` spoils the words and lengths."""

    def __init__(self, change):
        super().__init__("broken", 231, 17, "月火水")
        self.words, self.lengths = self.words.copy(), self.lengths.copy()
        change(self.words, self.lengths)


def same_word(words, lengths):
    words[0x6708], lengths[0x6708] = words[0x706B], lengths[0x706B]


def no_word(words, lengths):
    lengths[0x6708] = 0


def surrogate_word(words, lengths):
    lengths[0xD800] = 1


def swapped(words, lengths):
    words[[0x6708, 0x706B]] = words[[0x706B, 0x6708]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (same_word, r"U\+6708 encoded and decoded: found the value 28779"),
        (no_word, "found 1,112,191 code points with a word"),
        (surrogate_word, "found 1,112,193 code points with a word"),
        (swapped, r"U\+6708 encoded and decoded"),
    ],
)
def test_proof_refuses_a_broken_mapping(change, message):
    with pytest.raises(EncodingError, match=message):
        prove(Broken(change))


class Wrong(Utf8Encoding):
    """UTF-8 whose first control is what its caller says."""

    def __init__(self, word: bytes):
        super().__init__()
        self.controls = {**self.controls, "<|pad|>": word}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (b"a", r"the word 61 of U\+0061 at the beginning of that of <\|pad\|>"),
        ("月".encode()[:2], r"the word e6 9c of <\|pad\|> at the beginning of that of U\+6700"),
        (b"az", r"the word 61 of U\+0061 at the beginning of that of <\|pad\|>"),
        (b"\xff", r"the word ff of <\|pad\|> at the beginning of that of <\|user4\|>"),
    ],
)
def test_proof_refuses_controls_that_are_not_apart_from_text(word, message):
    with pytest.raises(EncodingError, match=message):
        prove(Wrong(word))


def test_proof_refuses_another_tables_digest():
    first, other = DenseEncoding("mine", 231, 17, "月火"), DenseEncoding("mine", 231, 17, "火月")
    with pytest.raises(EncodingError, match=f"found {first.digest} of the mapping, expected {other.digest}"):
        prove(first, other.to_dict())

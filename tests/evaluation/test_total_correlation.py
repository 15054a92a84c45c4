"""Total correlation of the bytes of a patch against enumeration of all patches."""

import itertools

import numpy as np
import pytest

from bytelm.encoding import get_encoding
from bytelm.errors import EncodingError
from bytelm.evaluation.code_words import CodeWords
from bytelm.evaluation.total_correlation import BigramOracle, Contexts, sample_contexts, total_correlation

TOY = {"a": b"\x00", "b": b"\x01", "c": b"\x10\x00", "d": b"\x10\x01", "e": b"\x11\x10\x00", "f": b"\x11\x11\x11\x02"}
POINTS = np.array([ord(c) for c in TOY])


def toy_code(table) -> CodeWords:
    words, lengths = np.zeros((0x110000, 4), np.uint8), np.zeros(0x110000, np.uint8)
    for character, word in table.items():
        words[ord(character), : len(word)] = list(word)
        lengths[ord(character)] = len(word)
    return CodeWords("toy", words, lengths)


def random_oracle(size: int, seed: int) -> BigramOracle:
    p = np.random.default_rng(seed).dirichlet(np.full(size, 0.5), size=size)
    return BigramOracle(np.array([ord(c) for c in TOY][:size]), p)


def enumerated(words: list[bytes], p, previous: int, current: int, seen: int, patch: int) -> float:
    """The same from the list of all strings of a patch and their probabilities."""
    strings: dict[bytes, float] = {}

    def grow(prefix: bytes, last: int, mass: float) -> None:
        if len(prefix) >= patch:
            strings[prefix[:patch]] = strings.get(prefix[:patch], 0) + mass
            return
        for index, word in enumerate(words):
            if p[last, index] > 0:
                grow(prefix + word, index, mass * p[last, index])

    begun = words[current][:seen]
    options = [i for i, word in enumerate(words) if word.startswith(begun) and len(word) > seen]
    total = sum(p[previous, i] for i in options)
    for i in options:
        if seen:
            grow(words[i][seen:], i, p[previous, i] / total)
    if not seen:
        grow(b"", previous, 1.0)

    def entropy(masses) -> float:
        return -sum(m * np.log2(m) for m in masses if m > 0)

    margins = 0.0
    for j in range(patch):
        by_byte: dict[int, float] = {}
        for string, mass in strings.items():
            by_byte[string[j]] = by_byte.get(string[j], 0) + mass
        margins += entropy(by_byte.values())
    assert sum(strings.values()) == pytest.approx(1)
    return margins - entropy(strings.values())


@pytest.mark.parametrize("patch", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_enumeration(patch, seed):
    words = list(TOY.values())
    oracle = random_oracle(len(TOY), seed)
    cases = [
        (previous, current, seen)
        for previous, current in itertools.product(range(len(TOY)), repeat=2)
        for seen in range(len(words[current]))
    ]
    contexts = Contexts(*np.array(cases).T)
    found = total_correlation(toy_code(TOY), oracle, contexts, patch)
    expected = [enumerated(words, oracle.p, *case, patch) for case in cases]
    assert np.allclose(found, expected, atol=1e-9)
    assert found.min() > -1e-9
    assert (found.max() > 0.05) == (patch > 1)


def test_zero_where_bytes_are_independent():
    """Two independent digits in each word, and no memory from one character to the next."""
    table = {"a": b"\x00\x00", "b": b"\x00\x01", "c": b"\x01\x00", "d": b"\x01\x01"}
    row = np.outer([0.3, 0.7], [0.6, 0.4]).ravel()
    oracle = BigramOracle(np.array([ord(c) for c in table]), np.tile(row, (4, 1)))
    contexts = Contexts(*np.array([(0, 1, 0), (2, 3, 0), (1, 1, 1)]).T)
    assert np.allclose(total_correlation(toy_code(table), oracle, contexts), 0, atol=1e-12)


def test_one_character_of_utf32_is_its_bytes_less_the_character():
    text = np.array([ord(c) for c in "春の海ひねもすのたりと波の音を聞く。春の夜の夢。"])
    points = np.unique(text)
    oracle = BigramOracle.fit([text], points)
    utf32 = CodeWords.of_encoding(get_encoding("utf32"))
    contexts = sample_contexts([text], utf32, points, 4, 100, seed=0)
    assert len(contexts.previous) == len(text) - 1
    assert not contexts.seen.any()
    found = total_correlation(utf32, oracle, contexts)
    for previous, value in zip(contexts.previous, found, strict=True):
        p = oracle.p[previous]
        margins = [np.bincount(utf32.words[points, k], weights=p) for k in range(4)]
        expected = sum(-(m[m > 0] * np.log2(m[m > 0])).sum() for m in margins) + (p * np.log2(p)).sum()
        assert value == pytest.approx(expected, abs=1e-9)


def test_the_oracle_is_witten_bell():
    text = np.array([1, 2, 1, 3, 1, 2])
    oracle = BigramOracle.fit([text], np.array([1, 2, 3, 4]))
    unigram = np.array([3.5, 2.5, 1.5, 0.5]) / 8
    assert np.allclose(oracle.p[0], (np.array([0, 2, 1, 0]) + 2 * unigram) / 5)
    assert np.allclose(oracle.p[3], unigram)
    assert np.allclose(oracle.p.sum(axis=1), 1)


def test_words_of_codecs():
    points = np.array([ord(c) for c in "aあ한🗻"])
    cp932 = CodeWords.of_codec("cp932", points)
    assert cp932.lengths[points].tolist() == [1, 2, 0, 0]
    assert bytes(cp932.words[ord("あ"), :2]) == "あ".encode("cp932")
    assert CodeWords.of_codec("gb18030", points).lengths[points].tolist() == [1, 2, 4, 4]
    with pytest.raises(EncodingError, match="codec: found 'morse'"):
        CodeWords.of_codec("morse", points)

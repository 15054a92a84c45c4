"""Every encoding over all 1,112,064 scalar values: total, injective, prefix-free, and equal to a slow coder."""

import itertools

import numpy as np
import pytest
from byte_strategies import NAMES

from bytelm.encoding import CONTROL_NAMES, ESCAPES, INVALID, get_encoding
from bytelm.encoding.reference import SCALARS, reference_coder

ALL = np.array(SCALARS)
WITH_ESCAPES = np.array([*SCALARS, *ESCAPES])


@pytest.fixture(scope="module")
def all_text() -> str:
    return "".join(map(chr, SCALARS))


@pytest.fixture(scope="module")
def encoded(encoding, all_text):
    return encoding.encode(all_text)


def test_every_scalar_round_trips(encoding, all_text, encoded, kernel):
    assert encoded.dtype == np.uint8
    assert encoding.decode(encoded) == all_text
    assert encoding.decode(encoded, errors="replace") == all_text


def test_every_scalar_alone_is_its_table_word(encoding, encoded):
    """The text of all scalars is the table's words one after another, and parse finds exactly these words in it."""
    lengths = encoding.lengths[ALL].astype(np.int64)
    assert lengths.min() >= 1
    assert lengths.max() <= encoding.max_word
    assert not (lengths % encoding.unit).any()
    values, starts = encoding.parse(encoded)
    assert np.array_equal(values, ALL)
    assert np.array_equal(starts, np.cumsum(lengths) - lengths)
    for k in range(4):
        longer = lengths > k
        table_byte = (encoding.words[ALL] >> (24 - 8 * k)).astype(np.uint8)
        assert np.array_equal(encoded[starts[longer] + k], table_byte[longer])
        assert not table_byte[~longer].any()  # padding


def test_every_scalar_equals_the_reference_coder(encoding, slow, encoded):
    assert b"".join(map(slow.word, SCALARS)) == encoded.tobytes()


@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_single_characters_through_the_public_methods(encoding, slow, errors):
    tiers = [0, 0x7F, 0x80, 0x7FF, 0x800, 0x3042, 0x65E5, 0xD7FF, 0xE000, 0xFFFD, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF]
    for scalar in [*tiers, *SCALARS[::997]]:
        word = encoding.encode(chr(scalar))
        assert word.tobytes() == slow.word(scalar)
        assert encoding.decode(word, errors=errors) == chr(scalar)
        assert encoding.complete(word) == len(word)


def test_surrogates_have_no_word_but_for_escaped_bytes(encoding):
    without = [*range(0xD800, ESCAPES.start), *range(ESCAPES.stop, 0xE000)]
    assert not encoding.lengths[without].any()
    assert not encoding.words[without].any()
    assert encoding.lengths[ESCAPES.start : ESCAPES.stop].all()


def words_of_each_length(encoding) -> list[int]:
    """A character for each length of a code word, the last of that length."""
    lengths = encoding.lengths[ALL]
    return [int(ALL[np.flatnonzero(lengths == n)[-1]]) for n in np.unique(lengths)]


def circle_of_pairs(symbols) -> list:
    """The symbols in a circle in which each stands once before each (a de Bruijn sequence)."""
    return [c for i, a in enumerate(symbols) for c in (a, *itertools.chain(*((a, b) for b in symbols[i + 1 :])))]


def test_every_scalar_between_neighbours_of_every_word_length(encoding, kernel):
    """Encoding and decoding a character does not depend on what stands beside it."""
    words = words_of_each_length(encoding)
    circle = circle_of_pairs(words)
    assert sorted(zip(circle, [*circle[1:], circle[0]], strict=True)) == sorted(itertools.product(words, repeat=2))
    for scalars in np.array_split(ALL, 16):
        places = np.empty((len(scalars), len(circle), 2), "<u4")
        places[..., 0], places[..., 1] = circle, scalars[:, None]
        text = places.tobytes().decode("utf-32-le") + chr(circle[0])
        data = encoding.encode(text)
        assert encoding.decode(data) == text
        around = len(scalars) * encoding.lengths[circle].sum(dtype=np.int64) + encoding.lengths[circle[0]]
        assert len(data) == len(circle) * encoding.lengths[scalars].sum(dtype=np.int64) + around


def table_with_controls(encoding):
    """Left-aligned words and lengths of all scalars and controls."""
    control_words = [int.from_bytes(word.ljust(4, b"\0"), "big") for word in encoding.controls.values()]
    control_lengths = [len(word) for word in encoding.controls.values()]
    words = np.concatenate([encoding.words[WITH_ESCAPES].astype(np.int64), control_words])
    return words, np.concatenate([encoding.lengths[WITH_ESCAPES].astype(np.int64), control_lengths])


def prefix_pairs(words, lengths) -> int:
    """Number of neighbours, in sorted order, of which one begins the other; 0 means prefix-free and injective.

    Words that begin with w stand right after w when words are sorted as left-aligned numbers, shorter first.
    """
    order = np.lexsort((lengths, words))
    words, lengths = words[order], lengths[order]
    shift = 8 * (4 - lengths[:-1])
    return int((words[:-1] >> shift == words[1:] >> shift).sum())


def test_prefix_free_and_distinct_with_controls(encoding):
    words, lengths = table_with_controls(encoding)
    assert len(words) == 1_112_064 + 128 + len(CONTROL_NAMES)
    assert prefix_pairs(words, lengths) == 0


@pytest.mark.parametrize("defect", ["duplicate", "prefix", "control"])
def test_the_prefix_check_can_fail(encoding, defect):
    words, lengths = table_with_controls(encoding)
    if defect == "duplicate":
        words[500], lengths[500] = words[70_000], lengths[70_000]
    elif defect == "prefix":
        longest = int(np.argmax(lengths))
        words, lengths = np.append(words, words[longest] + 1), np.append(lengths, 4)
        words[longest], lengths[longest] = words[longest] >> 24 << 24, 1
    else:
        words[-1], lengths[-1] = words[0x3042], lengths[0x3042]
    assert prefix_pairs(words, lengths) > 0


def test_controls_never_decode_to_text(encoding):
    for number, (control, word) in enumerate(encoding.controls.items()):
        assert control == CONTROL_NAMES[number]
        assert len(word) % encoding.unit == 0
        values, starts = encoding.parse(word)
        assert values.tolist() == [-1 - number]
        assert starts.tolist() == [0]
        assert encoding.decode(word, errors="replace") == "\ufffd"
        assert encoding.complete(word) == len(word)


def test_every_proper_prefix_of_a_word_is_unfinished(encoding):
    sample = np.concatenate([ALL[:3000:7], ALL[::997]])
    for scalar in sample:
        word = encoding.encode(chr(scalar))
        for size in range(1, len(word)):
            assert encoding.complete(word[:size]) == 0
    for word in encoding.controls.values():
        for size in range(1, len(word)):
            assert encoding.complete(word[:size]) == 0


# The other way: every byte string that has the form of a word


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("dense")])
def test_every_dense_word_is_a_value_by_rank_or_malformed(name):
    dense = get_encoding(name)
    slow = reference_coder(dense)
    stoppers, continuers = range(dense.s), range(dense.s, dense.s + dense.c)
    words = [bytes(word) for k in range(4) for word in itertools.product(*[continuers] * k, stoppers)]
    values, starts = dense.parse(b"".join(words))
    assert values.tolist() == slow.values + [INVALID] * (len(words) - len(slow.values))
    assert len(words) > len(slow.values)
    assert np.array_equal(np.diff(starts), list(map(len, words[:-1])))


@pytest.mark.parametrize("name", ["utf16", "ranked2"])
def test_every_unit_and_every_pair_of_units_is_what_it_should_be(name):
    encoding = get_encoding(name)
    slow = reference_coder(encoding)
    separator = encoding.encode("a").tobytes()
    units = b"".join(unit.to_bytes(2, "big") + separator for unit in range(0x10000))
    values, starts = encoding.parse(units)
    assert (values.tolist(), starts.tolist()) == slow.parse(units)

    leads, trails = np.meshgrid(slow.leads, slow.trails, indexing="ij")
    pairs = np.stack([leads, trails], axis=-1).astype(">u2").tobytes()
    values, starts = encoding.parse(pairs)
    assert values.tolist() == [*slow.pairs] + [INVALID] * (leads.size - len(slow.pairs))
    assert np.array_equal(starts, np.arange(0, len(pairs), 4))


def test_every_utf32_unit_up_to_well_beyond_unicode():
    utf32 = get_encoding("utf32")
    units = np.concatenate([np.arange(0x120000), [0x7FFFFFFF, 0x80000000, 0x80000041, 0xFFFFFFFF]])
    expected = np.where(units < 0x110000, units, INVALID)
    expected[0xD800 : ESCAPES.start] = expected[ESCAPES.stop : 0xE000] = INVALID
    expected[0x110000:0x110008] = [-1, -2, -3, -4, -5, -6, -7, -8]
    assert np.array_equal(utf32.parse(units.astype(">u4").tobytes())[0], expected)

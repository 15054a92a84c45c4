import math

import numpy as np
import pytest
import slow_model
from hypothesis import given, settings
from hypothesis import strategies as st
from support import BOS, random_bytes, tiny_model

from bytelm.errors import LawError
from bytelm.model.laws import check_law, score_symbols


def with_bos(data):
    return np.concatenate((BOS, np.asarray(data, np.uint8)))


@pytest.mark.parametrize("kind", ["independent", "chained"])
def test_a_law_of_other_heads_is_refused(kind):
    config = tiny_model(kind).config
    own, other = ("product", "chain") if kind == "independent" else ("chain", "product")
    assert check_law(config, None) == own
    assert check_law(config, own) == own
    assert check_law(config, "next") == "next"
    with pytest.raises(LawError, match=rf"^law '{other}': this model has {kind} heads, expected one of {own}, next$"):
        check_law(config, other)
    with pytest.raises(LawError, match=r"^law 'nxt'"):
        check_law(config, "nxt")


@pytest.mark.parametrize("length", [0, 1, 2, 3, 6])
def test_scores_equal_the_definition_byte_by_byte(law_and_model, length):
    """Each byte against numpy float64, for prompts of every length modulo 4."""
    law, model = law_and_model
    row = with_bos(random_bytes(length + 7, length))
    start = 4 + length
    found = score_symbols(model, law, [row], [start])[0]
    assert found.dtype == np.float64
    expected = [-slow_model.next_byte(model, law, row[:q], start)[row[q]] for q in range(start, len(row))]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_next_byte_has_total_probability_one(law_and_model):
    """At each of 5 places, after a prompt of 3 bytes; the law itself, by scoring all 256 continuations."""
    law, model = law_and_model
    context = with_bos(random_bytes(8))
    for place in range(7, 12):
        rows = [np.append(context[:place], np.uint8(byte)) for byte in range(256)]
        nats = np.array([n[-1] for n in score_symbols(model, law, rows, [7] * 256)])
        assert np.exp(-nats).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("law_kind", [("product", "independent"), ("chain", "chained"), ("next", "chained")])
def test_strings_of_two_bytes_have_total_probability_one(law_kind):
    """Over all pairs of a few bytes that hold nearly all the mass, and what they leave out: sharp unembeddings."""
    law, kind = law_kind
    model = tiny_model(kind, scale=60.0)
    context = with_bos([1, 2, 3])
    singles = [np.append(context, np.uint8(a)) for a in range(256)]
    first = np.exp(-np.array([n[-1] for n in score_symbols(model, law, singles, [7] * 256)]))
    likely = np.flatnonzero(first > 1e-3)
    pairs = [np.append(singles[a], np.uint8(b)) for a in likely for b in range(256)]
    total = np.exp(-np.array([n.sum() for n in score_symbols(model, law, pairs, [7] * len(pairs))])).sum()
    assert total == pytest.approx(first[likely].sum(), abs=1e-5)
    assert total > 0.9
    assert len(likely) < 100


@settings(max_examples=7)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), min_size=1, max_size=4),
    st.sampled_from([4, 8, 12, 16, 32]),
    st.integers(0, 5),
    st.sampled_from([1, 7, 16_384]),
)
def test_segments_cover_every_byte_once(rows, context, seed, max_windows):
    """Whatever the lengths: each byte is placed once, from a segment that fits and that reads half a context before."""
    for law, kind in (("product", "independent"), ("chain", "chained"), ("next", "chained")):
        model = _MODELS[kind, context]
        data = [with_bos(random_bytes(prompt + length, seed + i)) for i, (prompt, length) in enumerate(rows)]
        starts = [4 + prompt for prompt, _ in rows]
        found = score_symbols(model, law, data, starts, max_windows)
        assert [len(f) for f in found] == [length for _, length in rows]
        whole = _MODELS[kind, 256]
        for row, start, nats in zip(data, starts, found, strict=True):
            if len(row) <= context:
                np.testing.assert_allclose(nats, score_symbols(whole, law, [row], [start])[0], atol=1e-4)
            _check_windows(model, law, row, start, nats)


def _check_windows(model, law, row, start, nats):
    """Each byte's nats are those of some window of at most the context and at least half of it (or all there is)."""
    patch, longest = 4, model.config.context
    for q in range(start, len(row), 9):
        told = 0 if law == "next" else (q - start) % patch
        end = q - told
        least = min(end // patch * patch, -(-longest // (2 * patch)) * patch)
        sizes = range(least, min(longest, end // patch * patch) + 1, patch)
        near = [-_log_p(model, row[end - size : end], row[end : end + told])[row[q]] for size in sizes]
        assert min(abs(n - nats[q - start]) for n in near) < 1e-3


def _log_p(model, body, prefix):
    states = slow_model.states(model, body)
    return slow_model.log_softmax(slow_model.head_logits(model, states[-1], body[-4:], prefix))


_MODELS = {
    (kind, context): tiny_model(kind, num_blocks=1, context=context)
    for kind in ("independent", "chained")
    for context in (4, 8, 12, 16, 32, 256)
}


def test_a_long_text_does_not_depend_on_the_batch():
    model = tiny_model(context=16)
    rows = [with_bos(random_bytes(n, n)) for n in (100, 3, 41)]
    together = score_symbols(model, "next", rows, [4, 5, 9])
    for row, start, nats in zip(rows, [4, 5, 9], together, strict=True):
        np.testing.assert_allclose(score_symbols(model, "next", [row], [start], 1)[0], nats, atol=1e-5)


def test_an_untrained_model_is_nearly_uniform():
    model = tiny_model(scale=0.01)
    nats = score_symbols(model, "chain", [with_bos(random_bytes(30))], [4])[0]
    np.testing.assert_allclose(nats, math.log(256), atol=1e-2)

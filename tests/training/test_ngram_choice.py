"""Which n-grams get rows: their worth is that of a loop over occurrences, and training gives rows to the best."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.errors import ConfigError
from bytelm.nn.ngram import ngram_keys
from bytelm.training.ngram_choice import DISCOUNT, rank_ngrams


def probabilities(text, n, lower, vocab_size):
    """p(b | w) for each w of n symbols and b that follows it, and what each w is worth, occurrence by occurrence."""
    follows = {}
    for i in range(len(text) - n):
        follows.setdefault(tuple(text[i : i + n]), Counter())[text[i + n]] += 1

    def p(counts, b, q):
        total = sum(counts.values())
        return (
            (max(counts[b] - DISCOUNT, 0) + DISCOUNT * sum(k > 0 for k in counts.values()) * q) / total if total else q
        )

    found, worth = {}, Counter()
    for w, counts in follows.items():
        for b, times in counts.items():
            q = lower[w[1:]][b]
            found.setdefault(w, {})[b] = p(counts, b, q)
            without = counts.copy()
            without[b] -= 1
            worth[w] += times * math.log2(p(without, b, q) / q)
    return found, worth


def ranked_by_loops(text, vocab_size, orders):
    counts = Counter(text)
    total = len(text) + 0.5 * vocab_size
    lower = {(): {b: (counts[b] + 0.5) / total for b in range(vocab_size)}}
    worths = {}
    for n in range(1, max(orders) + 1):
        lower, worth = probabilities(text, n, lower, vocab_size)
        if n in orders:
            worths |= worth
    return {w: bits for w, bits in worths.items() if bits > 1e-9}


def key(ngram):
    return int(ngram_keys(torch.tensor(ngram)))


@given(st.integers(2, 300), st.lists(st.integers(0, 3), max_size=60), st.sets(st.integers(1, 4), min_size=1))
def test_the_ranking_is_that_of_a_loop_over_occurrences(vocab_size, text, orders):
    text = [symbol * (vocab_size - 1) // 3 for symbol in text]
    expected = ranked_by_loops(text, vocab_size, orders) if text else {}
    ranked = rank_ngrams(np.array(text, np.int32), vocab_size, sorted(orders), 1000)
    by_key = {key(w): bits for w, bits in expected.items()}
    worths = [by_key.get(k, 0.0) for k in ranked.keys.tolist()]
    assert set(by_key) <= set(ranked.keys.tolist())
    assert all(a >= b - 1e-6 for a, b in itertools.pairwise(worths))
    lengths = dict(zip(ranked.keys.tolist(), ranked.orders.tolist(), strict=True))
    assert {key(w): len(w) for w in expected}.items() <= lengths.items()


def test_what_tells_most_comes_first_and_what_tells_nothing_does_not_come():
    rng = np.random.default_rng(0)
    text = rng.integers(0, 20, 4000)
    text[1000:3000:2], text[1001:3001:2] = 30, 31  # after 30 always 31
    ranked = rank_ngrams(text, 256, (1, 2), 5)
    assert ranked.keys[0] == key([30])
    assert key([31, 30]) not in ranked.best([2], 5)  # 30 alone says as much
    assert len(ranked.best([1, 2], 3)) == 3


def test_fewer_are_chosen_where_a_text_has_fewer():
    assert len(rank_ngrams(np.zeros(0, np.uint8), 256, (2, 3), 10).keys) == 0
    assert len(rank_ngrams(np.arange(50, dtype=np.uint8), 256, (2, 3), 10).keys) == 0


def test_ngrams_too_long_to_be_counted_are_refused():
    rank_ngrams(np.zeros(9, np.int32), 8192, (3,), 5)
    with pytest.raises(ConfigError, match=r"tables\.orders: found \(2, 4\) of 8192 symbols, expected at most 3"):
        rank_ngrams(np.zeros(9, np.int32), 8192, (2, 4), 5)

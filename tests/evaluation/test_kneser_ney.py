import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.errors import ConfigError
from bytelm.evaluation.character_ngram import NUM_SCALARS
from bytelm.evaluation.kneser_ney import KneserNey

START = "\0"  # in no text here
TEXTS = ["赤い屋根の家と青い屋根の家", "屋根の上の猫", "青い家の赤い猫と赤い猫", "", "と"]


class Slow:
    """The definition: dictionaries, one n-gram at a time."""

    def __init__(self, order, texts):
        self.order = order
        grams = [Counter() for _ in range(order)]
        for text in texts:
            padded = START * (order - 1) + START + text
            for end in range(order, len(padded) + 1):
                for n in range(1, order + 1):
                    grams[n - 1][padded[end - n : end]] += 1
        self.counts = [self.before(grams[n]) for n in range(1, order)] + [dict(grams[-1])]
        self.counts = [{g: c for g, c in counts.items() if g[-1] != START} for counts in self.counts]
        self.discounts = [self.discounts_of(list(counts.values())) for counts in self.counts]

    @staticmethod
    def before(longer):
        """How many different characters come before each."""
        return dict(Counter(gram[1:] for gram in longer))

    @staticmethod
    def discounts_of(counts):
        n1, n2, n3, n4 = (sum(c == k for c in counts) for k in range(1, 5))
        if 0 in (n1, n2, n3, n4):
            return [0, 0.5, 1.0, 1.5]
        y = n1 / (n1 + 2 * n2)
        found = [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        return [min(max(d, 0), k) for k, d in enumerate(found)]

    def probability(self, character, context, n):
        if n == 0:
            return 1 / NUM_SCALARS
        history = context[len(context) - (n - 1) :]
        p = self.probability(character, context, n - 1)
        counts, discounts = self.counts[n - 1], self.discounts[n - 1]
        after = [c for gram, c in counts.items() if gram[:-1] == history]
        if not after:
            return p
        count = counts.get(history + character, 0)
        left = sum(discounts[min(c, 3)] for c in after) / sum(after)
        return (count - discounts[min(count, 3)]) / sum(after) + left * p

    def bits_per_char(self, texts):
        bits = 0.0
        for text in texts:
            padded = START * self.order + text
            for i in range(self.order, len(padded)):
                bits -= math.log2(self.probability(padded[i], padded[:i], self.order))
        return bits / sum(map(len, texts))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_law_is_that_of_the_definition(order):
    held_out = ["青い屋根の猫と家", "赤い海", "x"]
    fast, slow = KneserNey(order).fit(TEXTS), Slow(order, TEXTS)
    assert fast.bits_per_char(held_out) == pytest.approx(slow.bits_per_char(held_out), rel=1e-12)
    assert fast.bits_per_char(TEXTS) == pytest.approx(slow.bits_per_char(TEXTS), rel=1e-12)


@given(
    st.lists(st.text("abcあ\U00020b9f", max_size=40), min_size=1, max_size=4),
    st.text("abcあう\U00020b9f", min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_any_texts(texts, held_out, order):
    if not any(texts):
        texts = ["a"]
    found = KneserNey(order).fit(texts).bits_per_char([held_out])
    assert found == pytest.approx(Slow(order, texts).bits_per_char([held_out]), rel=1e-12)


@pytest.mark.parametrize("order", [1, 3])
def test_probabilities_after_any_context_sum_to_one(order):
    model = KneserNey(order).fit(TEXTS)
    known = sorted(set("".join(TEXTS)))
    for context in ("", "屋", "屋根", "青い", "xy"):
        inside = [2 ** -(model.bits_per_char([context + c]) * len(context + c)) / prefix(model, context) for c in known]
        one = 2 ** -(model.bits_per_char([context + "z"]) * len(context + "z")) / prefix(model, context)
        assert sum(inside) + one * (NUM_SCALARS - len(known)) == pytest.approx(1, rel=1e-9)


def prefix(model, context):
    return 2 ** -(model.bits_per_char([context]) * len(context)) if context else 1.0


def test_a_longer_context_pays_on_text_of_the_same_kind():
    words, rng = ["山が", "川の", "空に", "鳥と", "雲も", "風は"], np.random.default_rng(0)
    train, held_out = ("".join(rng.choice(words, 400)) for _ in range(2))
    found = [KneserNey(order).fit([train]).bits_per_char([held_out]) for order in (1, 2)]
    assert found[1] == pytest.approx(math.log2(6) / 2, abs=0.1)
    assert found[0] > found[1] + 1


def test_an_order_below_one_is_refused():
    with pytest.raises(ConfigError, match=r"^order: found 0, expected at least 1"):
        KneserNey(0)

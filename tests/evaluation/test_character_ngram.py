"""The rivals: proper distributions, equal to a slow recursive definition, ordered as they should be."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.errors import ConfigError
from bytelm.evaluation import CharacterNgram
from bytelm.evaluation.character_ngram import NUM_SCALARS

TEXTS = ["山の上に雪が降る。", "山の下に雨が降る。", "海の上に月が出る。", "雪と雨と月。"]


def slow_probability(texts: list[str], order: int, character: str, context: str) -> float:
    """The defining recursion, by counting substrings of the padded texts anew each time."""
    padded = ["\0" * (order - 1) + text for text in texts]

    def p(context: str) -> float:
        n = len(context)
        after = Counter(t[i] for t in padded for i in range(order - 1, len(t)) if t[i - n : i] == context)
        lower = p(context[1:]) if context else 1 / NUM_SCALARS
        total = after.total()
        return (after[character] + len(after) * lower) / (total + len(after)) if total else lower

    return p(context[len(context) - (order - 1) :] if order > 1 else "")


@pytest.mark.parametrize("order", [1, 2, 3])
@given(character=st.sampled_from("山雪月。る犬"), context=st.text("山の雪と。降る犬", min_size=2, max_size=4))
def test_agrees_with_the_defining_recursion(order, character, context):
    model = CharacterNgram(order).fit(TEXTS)
    found = model.probability(character, tuple(context))
    assert math.isclose(found, slow_probability(TEXTS, order, character, context), rel_tol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("context", ["", "山の", "犬犬", "る。"])
def test_is_a_distribution_over_all_scalar_values(order, context):
    model = CharacterNgram(order).fit(TEXTS)
    seen = set("".join(TEXTS))
    unseen = model.probability("犬", tuple(context))
    mass = sum(model.probability(c, tuple(context)) for c in seen) + (NUM_SCALARS - len(seen)) * unseen
    assert math.isclose(mass, 1, rel_tol=1e-9)


def test_nats_are_the_sum_over_characters_from_the_start_of_the_text():
    model = CharacterNgram(3).fit(TEXTS)
    text = "山の上"
    padded = "\0\0" + text
    expected = -sum(math.log(slow_probability(TEXTS, 3, padded[i], padded[:i])) for i in range(2, len(padded)))
    assert math.isclose(model.nats(text), expected, rel_tol=1e-12)
    assert math.isclose(model.bits_per_char([text]), expected / math.log(2) / 3, rel_tol=1e-12)


def test_more_context_helps_on_text_of_the_same_kind():
    held_out = ["山の上に雨が降る。"]
    bits = [CharacterNgram(order).fit(TEXTS).bits_per_char(held_out) for order in (1, 3)]
    assert bits[1] < bits[0] < math.log2(NUM_SCALARS)


def test_order_below_one_is_refused():
    with pytest.raises(ConfigError, match="order: found 0"):
        CharacterNgram(0)

"""What each perturbation may change, and that it is a function of its arguments."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError
from bytelm.evaluation.perturbations import PERTURBATIONS, perturb

TEXT = "朝の港に白い船が三隻。カタカナとＡＢＣ１２３、abc 123、ガギグパピ、ｶﾞｷﾞ。" * 8

texts = st.text(st.characters(codec="utf-8"), max_size=60)
japanese = st.text(st.sampled_from("朝港の、カガパｶﾞaA1Ａ１ 。\n山"), max_size=60)
rates, seeds = st.floats(0, 1), st.integers(0, 9)


def is_subsequence(short, long):
    rest = iter(long)
    return all(character in rest for character in short)


@pytest.mark.parametrize("name", PERTURBATIONS)
@given(text=texts | japanese, rate=rates, seed=seeds)
def test_it_is_a_function_and_rate_zero_changes_nothing(name, text, rate, seed):
    found = perturb(name, text, rate, seed)
    assert found == perturb(name, text, rate, seed)
    assert perturb(name, text, 0, seed) == text
    encoding = get_encoding("dense-ja")
    assert encoding.decode(encoding.encode(found)) == found


@given(text=texts | japanese, rate=rates, seed=seeds)
def test_typos_obey_their_laws(text, rate, seed):
    assert Counter(perturb("swapped", text, rate, seed)) == Counter(text)
    assert is_subsequence(perturb("dropped", text, rate, seed), text)
    repeated = perturb("repeated", text, rate, seed)
    assert is_subsequence(text, repeated)
    assert len(repeated) <= 2 * len(text)
    assert set(repeated) == set(text)


@given(text=texts | japanese, rate=rates, seed=seeds)
def test_width_variants_mean_the_same(text, rate, seed):
    found = perturb("width", text, rate, seed)
    assert unicodedata.normalize("NFKC", found) == unicodedata.normalize("NFKC", text)


@given(text=texts | japanese, rate=rates, seed=seeds)
def test_rare_kanji_replace_kanji_alone(text, rate, seed):
    found = perturb("rare kanji", text, rate, seed)
    assert len(found) == len(text)
    for before, after in zip(text, found, strict=True):
        assert after == before or ("\u4e00" <= before <= "\u9fff" and unicodedata.name(after).startswith("CJK UNIFIED"))


@pytest.mark.parametrize("name", ["emoji", "scripts"])
@given(text=texts | japanese, rate=rates, seed=seeds)
def test_what_is_inserted_leaves_the_text(name, text, rate, seed):
    assert is_subsequence(text, perturb(name, text, rate, seed))


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_rate_and_seed_matter(name):
    found = [perturb(name, TEXT, 0.2, seed) for seed in range(3)]
    assert len({*found, TEXT}) == 4
    assert perturb(name, TEXT, 1, 0) != perturb(name, TEXT, 0.1, 0)


def test_half_width_katakana_come_and_go():
    assert perturb("width", "ガAパ。", 1, 0) == "ｶﾞＡﾊﾟ｡"
    assert perturb("width", "Ａ１！ｱ", 1, 0) == "A1!ア"


def test_what_is_no_perturbation_is_refused():
    with pytest.raises(ConfigError, match="perturbation: found 'typo', expected one of swapped"):
        perturb("typo", "a", 0.1, 0)
    with pytest.raises(ConfigError, match="rate: found 2"):
        perturb("emoji", "a", 2, 0)

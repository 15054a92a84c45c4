"""Warped distributions against sorting and counting; options refuse what they cannot mean."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from bytelm.decoding import Sampling, warp
from bytelm.errors import ConfigError
from bytelm.testing.reference import warp_reference

# Few distinct values make ties common.
logits_rows = st.integers(1, 40).flatmap(
    lambda vocab: st.lists(
        st.lists(
            st.one_of(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 3.0]), st.floats(-30, 30, width=32)),
            min_size=vocab,
            max_size=vocab,
        ).filter(lambda row: max(row) > -math.inf),
        min_size=1,
        max_size=3,
    )
)
options = {
    "temperature": st.sampled_from([0.05, 0.7, 1.0, 1.9]),
    "top_k": st.one_of(st.none(), st.integers(1, 50)),
    "top_p": st.one_of(st.none(), st.floats(0.001, 1.0)),
}


def near_border(row, sampling):
    """Whether rounding may decide what top-p keeps: a cumulative mass within 1e-9 of it, or almost equal logits."""
    if sampling.top_p is None or sampling.top_p == 1:
        return False
    p = np.sort(np.exp(warp_reference(row, sampling.temperature, sampling.top_k)))[::-1]
    return bool((np.abs(np.cumsum(p) - sampling.top_p) < 1e-9).any())


@settings(deadline=None)
@given(logits_rows, st.fixed_dictionaries(options), st.booleans())
def test_warp_equals_sorting_and_counting(rows, chosen, single):
    sampling = Sampling(do_sample=True, **chosen)
    assume(not any(near_border(row, sampling) for row in rows))
    logits = torch.tensor(rows, dtype=torch.float64)
    expected = np.stack([warp_reference(row, **chosen) for row in rows])
    found = warp(logits, sampling).numpy()
    np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1)
    if single and chosen["top_p"] is None:
        single_precision = warp(logits.float(), sampling)
        assert single_precision.dtype == torch.float32
        np.testing.assert_allclose(single_precision.exp().numpy(), np.exp(expected), atol=2e-4)


# In the order of transformers' ``generate``.
WARPERS = {
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
    "typical_p": TypicalLogitsWarper,
}
every_option = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0.2, 3.0),
        "top_k": st.integers(1, 50),
        "top_p": st.floats(0.05, 0.99),
        "min_p": st.floats(0.0, 1.0),
        "typical_p": st.floats(0.05, 0.99),
    },
)


@given(every_option, st.integers(2, 40), st.sampled_from([torch.float64, torch.float32]), st.integers(0, 2**32))
def test_warp_equals_the_warpers_of_transformers(chosen, vocab, dtype, seed):
    """Logits without ties; a quarter excluded. Their sums are in the type of the logits, so a mass that is a border to
    within its rounding may fall on either side: such draws are left out."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, vocab, dtype=dtype, generator=generator)
    excluded = torch.rand(4, vocab, generator=generator) < 0.25
    excluded[:, 0] = False
    logits = logits.masked_fill(excluded, -math.inf)
    chosen = {name: chosen[name] for name in WARPERS if name in chosen}
    scores = logits
    for name, value in chosen.items():
        warped = WARPERS[name](value)(None, scores)
        slightly = 1e-5 if name != "top_k" else 0
        if name in ("top_p", "min_p", "typical_p"):
            either = [
                WARPERS[name](min(value + way, 1 - 1e-9))(None, scores)
                for way in (-slightly, slightly)
                if value + way > 0
            ]
            assume(all(torch.equal(warped, other) for other in either))
        scores = warped
    found = warp(logits, Sampling(do_sample=True, **chosen))
    assert found.dtype == dtype
    expected = scores.log_softmax(-1)
    assert torch.equal(found == -math.inf, expected == -math.inf)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@given(every_option, st.integers(0, 2**32))
def test_leading_dimensions_are_independent(chosen, seed):
    logits = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    logits[0, 1, 3:] = -math.inf
    sampling = Sampling(do_sample=True, **chosen)
    found = warp(logits, sampling)
    for row, expected in zip(logits.flatten(0, 1), found.flatten(0, 1), strict=True):
        assert torch.equal(warp(row[None], sampling)[0], expected)
        assert torch.equal(warp(row, sampling), expected)


def test_warp_waits_for_nothing():
    """Tensors on the meta device have shapes and no values."""
    sampling = Sampling(do_sample=True, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, typical_p=0.9)
    assert warp(torch.zeros(2, 3, 9, device="meta"), sampling).shape == (2, 3, 9)


def kept(logits, **chosen):
    return (
        torch.isfinite(warp(torch.tensor([logits]), Sampling(do_sample=True, **chosen)))[0].nonzero().flatten().tolist()
    )


def test_ties():
    assert kept([1.0, 2.0, 2.0, 2.0, 0.0], top_k=1) == [1, 2, 3], "all ties at the border stay"
    assert kept([0.0] * 4, top_p=0.5) == [2, 3], "equals of larger index stay, and 0.5 reaches 0.5"
    assert kept([0.0] * 4, top_p=0.51) == [1, 2, 3]
    assert kept([0.0] * 4, top_p=1e-6) == [3], "at least one"
    assert kept([5.0, -math.inf, 5.0, 1.0], top_k=4) == [0, 2, 3]
    assert kept([3.0, 1.0, 0.0], top_k=100) == [0, 1, 2]
    assert kept([0.0] * 4, min_p=1.0) == [0, 1, 2, 3], "all that are as probable as the most probable stay"
    assert kept([0.0] * 4, typical_p=0.1) == [0, 1, 2, 3], "all that are as near as the last stay"


def test_typical_p_may_leave_out_the_most_probable():
    # 2.17 bits of entropy; -log2 p is 0.74 for the first and 4.58 for each other.
    p = [0.6] + [0.4 / 8] * 8
    assert kept([math.log(x) for x in p], typical_p=0.3) == [0]
    p = [0.3] + [0.7 / 14] * 14
    # 3.73 bits; 1.74 for the first and 4.32 for each other.
    assert kept([math.log(x) for x in p], typical_p=0.3) == list(range(1, 15))


def test_top_k_acts_before_top_p():
    p = [0.4, 0.3, 0.2, 0.1]
    # Of the two best, 0.4 / 0.7 = 0.571 reaches 0.55; of all four, 0.4 does not.
    assert kept([math.log(x) for x in p], top_k=2, top_p=0.55) == [0]
    assert kept([math.log(x) for x in p], top_p=0.55) == [0, 1]


def test_temperature_acts_before_top_p():
    logits = [math.log(x) for x in (0.5, 0.3, 0.2)]
    assert kept(logits, top_p=0.6) == [0, 1]
    assert kept(logits, top_p=0.6, temperature=0.3) == [0]


def test_tiny_temperature_and_low_precision_stay_finite():
    cold = warp(torch.tensor([[90.0, 91.0, -1e30]]), Sampling(do_sample=True, temperature=1e-37))
    assert cold[0, 1] == 0
    assert cold[0, 0] < -1e30
    assert cold[0, 2] == -math.inf
    assert warp(torch.randn(2, 9).bfloat16(), Sampling(do_sample=True)).dtype == torch.float32


def test_logits_are_not_changed():
    logits = torch.randn(2, 30)
    before = logits.clone()
    warp(logits, Sampling(do_sample=True, temperature=0.5, top_k=5, top_p=0.5))
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.0001),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("min_p", math.nan),
        ("typical_p", 0.0),
        ("typical_p", 1.0001),
        ("typical_p", math.nan),
    ],
)
def test_bad_options_are_named(field, value):
    with pytest.raises(ConfigError, match=f"^{field}: found {value}, expected"):
        Sampling(**{field: value})
    with pytest.raises(ConfigError, match=rf"^run\.sampling\.{field}: found"):
        Sampling.from_dict({field: value}, "run.sampling")


def test_options_of_the_wrong_type_and_unknown_ones_are_named():
    for data, path in (({"top_k": 2.5}, "top_k"), ({"do_sample": "yes"}, "do_sample"), ({"topk": 3}, "topk")):
        with pytest.raises(ConfigError, match=rf"^sampling\.{path}: "):
            Sampling.from_dict(data, "sampling")


def test_options_round_trip():
    sampling = Sampling(do_sample=True, temperature=0.7, top_k=40, top_p=0.95, min_p=0.1, typical_p=0.9)
    assert Sampling.from_yaml(sampling.to_yaml()) == sampling
    assert not sampling.greedy
    assert Sampling().greedy
    assert Sampling(do_sample=True, temperature=0.0).greedy

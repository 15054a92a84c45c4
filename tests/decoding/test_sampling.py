"""Warped distributions against sorting and counting; options refuse what they cannot mean."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from table_target import warp_reference

from bytelm.decoding import Sampling, warp
from bytelm.errors import ConfigError

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
    sampling = Sampling(do_sample=True, temperature=0.7, top_k=40, top_p=0.95)
    assert Sampling.from_yaml(sampling.to_yaml()) == sampling
    assert not sampling.greedy
    assert Sampling().greedy
    assert Sampling(do_sample=True, temperature=0.0).greedy

"""Attention through the native core, against float64, query by query, and beside torch."""

import math

import pytest
import torch
import torch.nn.functional as F

from bytelm.nn import attend as module
from bytelm.nn import native
from bytelm.nn.attend import attend

pytestmark = pytest.mark.usefixtures("unit")
needs_core = pytest.mark.skipif(native.core is None, reason="no native core here")


@pytest.fixture(autouse=True)
def _core_for_any_number_of_rows(monkeypatch):
    """As on processors that cannot multiply bfloat16."""
    monkeypatch.setattr(native, "has_unit", False)


@pytest.fixture
def calls(monkeypatch):
    """Whether the native core was used, call by call."""
    found = []
    fits = module._fits
    monkeypatch.setattr(module, "_fits", lambda *args: found.append(fits(*args)) or found[-1])
    return found


def inputs(batch, heads, kv_heads, queries, slots, width, capacity=None):
    """Queries, and the first slots of a cache whose others are NaN; every query sees the first slot at least."""
    cache = torch.full((2, batch, kv_heads, capacity or slots, width), math.nan, dtype=torch.bfloat16)
    cache[:, :, :, :slots] = torch.randn(2, batch, kv_heads, slots, width).to(torch.bfloat16)
    q = torch.randn(batch, heads, queries, width).to(torch.bfloat16)
    mask = torch.rand(batch, 1, queries, slots) < 0.7
    mask[..., 0] = True
    return q, cache[0][:, :, :slots], cache[1][:, :, :slots], mask


def exact(q, k, v, mask, scale):
    """The formula in float64."""
    share = q.shape[1] // k.shape[1]
    k, v = (part.double().repeat_interleave(share, 1) for part in (k, v))
    scores = (q.double() @ k.transpose(-1, -2) * scale).masked_fill(~mask, -math.inf)
    return scores.softmax(-1) @ v


SIZES = [
    (1, 2, 1, 1, 1, 16),
    (2, 2, 2, 2, 3, 32),
    (1, 1, 1, 1, 4, 16),
    (2, 4, 2, 3, 5, 32),
    (1, 6, 2, 2, 7, 48),
    (3, 2, 2, 1, 8, 16),
    (2, 4, 1, 5, 37, 64),
    (1, 3, 3, 9, 100, 80),
    (1, 2, 1, 13, 333, 256),
]


@needs_core
@pytest.mark.parametrize("scale", [None, 0.4])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@torch.no_grad()
def test_attention_is_the_formula_rounded_once(sizes, scale, calls):
    q, k, v, mask = inputs(*sizes, capacity=sizes[4] + 11)
    found = attend(q, k, v, mask, scale)
    expected = exact(q, k, v, mask, scale or 1 / math.sqrt(q.shape[-1]))
    assert found.dtype == torch.bfloat16
    assert ((found.double() - expected).abs() <= expected.abs() * 2**-8 + 2e-6 * v.abs().max()).all()
    assert calls == [True]


@needs_core
@torch.no_grad()
def test_a_query_does_not_depend_on_the_others_nor_on_slots_it_does_not_see(calls):
    q, k, v, mask = inputs(2, 4, 2, 6, 50, 32)
    mask[..., 41:] = False
    whole = attend(q, k, v, mask)
    for t in range(6):
        assert torch.equal(attend(q[:, :, t : t + 1], k, v, mask[:, :, t : t + 1]), whole[:, :, t : t + 1])
    for b in range(2):
        assert torch.equal(attend(*(part[b : b + 1] for part in (q, k, v, mask))), whole[b : b + 1])
    assert torch.equal(attend(q, k[:, :, :41], v[:, :, :41], mask[..., :41]), whole)
    k[:, :, 41:] = 300 * q[:1, :1, :1]
    assert torch.equal(attend(q, k, v, mask), whole)
    mask[..., 3:] = False
    assert torch.equal(attend(q, k[:, :, :3], v[:, :, :3], mask[..., :3]), attend(q, k, v, mask))
    seen = mask.clone()
    seen[0, 0, 2, 45] = True
    assert not torch.equal(attend(q, k, v, seen)[0, :, 2], attend(q, k, v, mask)[0, :, 2])
    assert all(calls)


@needs_core
@torch.no_grad()
def test_scores_of_any_size(calls):
    """Weights that are 0 or 1, and scores whose exponential is no float."""
    q, k, v, mask = inputs(1, 1, 1, 2, 9, 16)
    mask[:] = True
    k[0, 0, 4] = 30.0
    q[0, 0] = torch.tensor([[10.0], [-10.0]])
    found = attend(q, k, v, mask)
    assert torch.equal(found[0, 0, 0], v[0, 0, 4])
    expected = exact(q, k, v, mask, 0.25)
    torch.testing.assert_close(found.double(), expected, atol=1e-2, rtol=1e-2)
    mask[0, 0, 1] = False
    assert torch.equal(attend(q, k, v, mask)[0, 0, 1], torch.zeros(16, dtype=torch.bfloat16))
    assert all(calls)


@torch.no_grad()
def test_everything_else_is_torch(calls):
    q, k, v, mask = inputs(1, 2, 2, 3, 12, 16)
    for case in [
        (q.float(), k.float(), v.float(), mask),
        (q, k.transpose(1, 2).contiguous().transpose(1, 2), v, mask),
        (q[..., :8].contiguous(), k[..., :8].contiguous(), v[..., :8].contiguous(), mask),
    ]:
        assert torch.equal(attend(*case), F.scaled_dot_product_attention(*case[:3], attn_mask=case[3]))
    assert calls == [False] * 3
    calls.clear()
    bias = torch.zeros(1, 2, 3, 12, dtype=torch.bfloat16)
    assert torch.equal(attend(q, k, v, bias), F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
    assert torch.equal(attend(q, k, v, None), F.scaled_dot_product_attention(q, k, v, is_causal=True))
    assert calls == []


def test_gradients_are_those_of_torch(calls):
    q, k, v, mask = inputs(1, 2, 2, 3, 12, 16)
    attend(q.requires_grad_(), k, v, mask).sum().backward()
    assert q.grad is not None
    assert calls == [False]


@needs_core
def test_the_operation_is_one_that_torch_compile_knows():
    arguments = (*inputs(2, 4, 2, 3, 9, 16), 0.25)
    torch.library.opcheck(
        torch.ops.bytelm.rows_attention.default, arguments, test_utils=("test_schema", "test_faketensor")
    )


def test_without_the_core_all_is_torch(monkeypatch):
    monkeypatch.setattr(native, "core", None)
    q, k, v, mask = inputs(1, 2, 2, 3, 12, 16)
    with torch.no_grad():
        assert torch.equal(attend(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, attn_mask=mask))

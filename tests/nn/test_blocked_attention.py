"""Attention that trains in bfloat16, against torch's in float64: as near as torch's own kernel in bfloat16."""

import pytest
import torch
import torch.nn.functional as F

from bytelm.nn import attend as module
from bytelm.nn.attend import attend
from bytelm.nn.blocked_attention import blocked_attention, is_blocked


def tensors(batch, heads, kv_heads, length, width, dtype=torch.bfloat16):
    shapes = [(batch, heads, length, width), *[(batch, kv_heads, length, width)] * 2]
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]


def values_and_gradients(compute, parts, dtype):
    parts = [part.detach().to(dtype).requires_grad_() for part in parts]
    y = compute(*parts)
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().view_as(y)
    (y * weight.to(dtype)).sum().backward()
    return [y.detach().double(), *(part.grad.double() for part in parts)]


def torchs(q, k, v, scale=None):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 300])
def test_values_and_gradients(length, heads, kv_heads):
    parts = tensors(2, heads, kv_heads, length, 16)
    exact = values_and_gradients(torchs, parts, torch.float64)
    ours = values_and_gradients(lambda *qkv: blocked_attention(*qkv, 0.25), parts, torch.bfloat16)
    theirs = values_and_gradients(torchs, parts, torch.bfloat16)
    for expected, found, other in zip(exact, ours, theirs, strict=True):
        if expected.norm() < 1e-9:  # one slot has weight 1 whatever the scores are
            assert found.abs().max() < 0.01
            continue
        error = (found - expected).norm() / expected.norm()
        assert error < 0.01
        assert error < 2.5 * (other - expected).norm() / expected.norm() + 1e-3


def test_a_scale_of_ones_own():
    parts = tensors(1, 2, 1, 140, 8)
    exact = values_and_gradients(lambda *qkv: torchs(*qkv, scale=0.7), parts, torch.float64)
    found = values_and_gradients(lambda *qkv: blocked_attention(*qkv, 0.7), parts, torch.bfloat16)
    for one, other in zip(exact, found, strict=True):
        assert (one - other).norm() < 0.015 * one.norm()


def test_later_slots_change_nothing():
    q, k, v = tensors(1, 2, 2, 200, 8)
    before = blocked_attention(q, k, v, 1.0)
    with torch.no_grad():
        k[:, :, 150:], v[:, :, 150:] = 30.0, 1e9
    assert torch.equal(blocked_attention(q, k, v, 1.0)[:, :, :150], before[:, :, :150])


def test_nothing_but_inputs_is_kept():
    kept = []
    parts = tensors(1, 2, 2, 512, 8)
    with torch.autograd.graph.saved_tensors_hooks(lambda part: kept.append(part.numel()) or part, lambda part: part):
        blocked_attention(*parts, 1.0)
    assert max(kept) == 2 * 512 * 8


def test_when(monkeypatch):
    monkeypatch.setattr("bytelm.nn.blocked_attention.has_unit", True)
    parts = tensors(1, 2, 2, 4, 8)
    assert is_blocked(*parts)
    with torch.no_grad():
        assert not is_blocked(*parts)
    assert not is_blocked(*(part.float() for part in parts))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert is_blocked(*(part.float() for part in parts))
    assert not is_blocked(*(part.to("meta") for part in parts))
    called = []
    monkeypatch.setattr(module, "blocked_attention", lambda *args: called.append(args) or args[0])
    attend(*parts, None)
    assert called[0][3] == pytest.approx(8**-0.5)
    attend(*parts, torch.ones(1, 1, 4, 4, dtype=torch.bool))
    assert len(called) == 1
    monkeypatch.setattr("bytelm.nn.blocked_attention.has_unit", False)
    assert not is_blocked(*parts)

"""Products of bfloat16 made in float32: against float64, and against torch's own, forwards and backwards."""

import copy

import pytest
import torch
from support import tiny_config

from bytelm.model import build_model
from bytelm.nn import widened
from bytelm.nn.linear import Linear, linear
from bytelm.nn.widened import is_widened, widened_linear


@pytest.fixture(autouse=True)
def _no_unit(monkeypatch):
    monkeypatch.setattr(widened, "has_unit", False)


def rounded(x):
    return x.to(torch.bfloat16).double()


@pytest.mark.parametrize("bias", [False, True])
def test_each_product_is_rounded_once(bias):
    """Half a unit of 8 bits around the exact result, and what sums in float32 are off."""
    x, w = torch.randn(3, 7, 48, requires_grad=True), torch.randn(20, 48, requires_grad=True)
    b = torch.randn(20, requires_grad=True) if bias else None
    y = widened_linear(x, w, b)
    g = torch.randn_like(y)
    y.backward(g)
    exact_y = rounded(x) @ rounded(w).t() + (rounded(b) if bias else 0)
    exact_x, exact_w = rounded(g) @ rounded(w), (rounded(g).flatten(0, 1).t() @ rounded(x).flatten(0, 1))
    pairs = [(y, exact_y), (x.grad, exact_x), (w.grad, exact_w)]
    pairs += [(b.grad, rounded(g).sum((0, 1)))] if bias else []
    for found, exact in pairs:
        assert ((found.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-4).all()
    assert (y.dtype, x.grad.dtype, w.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_when_it_is_used(monkeypatch):
    x, w = torch.randn(2, 16), torch.randn(8, 16)
    half = x.bfloat16(), w.bfloat16()
    assert is_widened(*half)
    assert not is_widened(x, w)
    assert not is_widened(x, half[1])
    with torch.no_grad():
        assert not is_widened(*half)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_widened(x, w)
        assert linear(x, w).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.float16):
        assert not is_widened(x, w)
    monkeypatch.setattr(widened, "has_unit", True)
    assert not is_widened(*half)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_a_model_learns_as_with_torchs_own_products(precision, monkeypatch):
    """Loss and gradients differ by rounding alone; a layer that is left out shows."""
    model = build_model(tiny_config(), 0)
    if precision == "bf16-true":
        model.to(torch.bfloat16)
    other = copy.deepcopy(model)
    data = torch.randint(0, 256, (3, 36))

    def nats(each):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            found = each.patch_nats(data).mean()
        found.backward()
        return found.item()

    first = nats(model)
    monkeypatch.setattr(widened, "has_unit", True)
    assert nats(other) == pytest.approx(first, abs=2e-3)
    layers = [name for name, part in model.named_modules() if isinstance(part, Linear)]
    for name in layers:
        one, two = (m.get_submodule(name).weight.grad.float() for m in (model, other))
        assert (one - two).norm() <= 0.03 * two.norm(), name

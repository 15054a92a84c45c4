"""Norms and rotations in one pass, against the plain operations in float64: as near as those in the type itself."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.nn import elementwise
from bytelm.nn.elementwise import is_elementwise
from bytelm.nn.norm import RMSNorm
from bytelm.nn.rotary import rotary_angles, rotate

pytestmark = pytest.mark.skipif(elementwise.core is None, reason="the core was not built")
TYPES = [torch.float32, torch.bfloat16]


@pytest.fixture
def plain(monkeypatch):
    """Computes without the core."""

    def compute(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(elementwise, "core", None)
            return function(*args)

    return compute


def normalised(x, weight, grad):
    """Output, and gradients of input and weight."""
    norm = RMSNorm(x.shape[-1], 1e-5).to(weight.dtype)
    x = x.detach().requires_grad_()
    with torch.no_grad():
        norm.weight.copy_(weight)
    y = norm(x)
    y.backward(grad.to(y.dtype))
    return y.detach(), x.grad, norm.weight.grad


def turned(x, cos, sin, grad):
    """Output, and the gradient of the input, of heads that are a part of a product's output."""
    heads, positions, width = x.shape[1:]
    wide = torch.cat((x.transpose(1, 2).flatten(2), x.new_ones(len(x), positions, 3)), -1).requires_grad_()
    y = rotate(wide[..., : heads * width].unflatten(-1, (-1, width)).transpose(1, 2), cos, sin)
    y.backward(grad.to(y.dtype))
    return y.detach(), wide.grad[..., : heads * width]


def exact_norm(x, weight, grad):
    """The equation in float64."""
    x, weight = x.double().requires_grad_(), weight.double().requires_grad_()
    y = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    y.backward(grad.double())
    return y.detach(), x.grad, weight.grad


def distance(one, other):
    return (one.double() - other.double()).norm() / other.double().norm().clamp_min(1e-30)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3, 16), (3, 65, 40), (1, 200, 257)])
def test_norms(shape, dtype, plain):
    x, weight, grad = torch.randn(shape).to(dtype) * 3, torch.randn(shape[-1]), torch.randn(shape)
    exact = exact_norm(x, weight, grad)
    for found, other, expected in zip(
        normalised(x, weight, grad), plain(normalised, x, weight, grad), exact, strict=True
    ):
        assert found.dtype == other.dtype
        rounding = 3e-7 * (expected.norm() + grad.norm())
        assert (found - expected).norm() < 1.2 * (other - expected).norm() + rounding


@pytest.mark.parametrize("dtype", TYPES)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    positions=st.integers(1, 9),
    half=st.integers(1, 9),
    more=st.integers(0, 5),
    batched=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rotations(dtype, batch, heads, positions, half, more, batched, seed):
    torch.manual_seed(seed)
    places = torch.randint(0, 999, (batch, positions)) if batched else torch.randint(0, 999, (positions,))
    cos, sin = rotary_angles(places, 2 * half, 100.0)
    x = torch.randn(batch, heads, positions, 2 * half + more).to(dtype)
    grad = torch.randn(x.shape).to(dtype)
    y, of_x = turned(x, cos, sin, grad)
    core, elementwise.core = elementwise.core, None
    try:
        other_y, other_of_x = turned(x, cos, sin, grad)
        exact = turned(x.double(), cos.double(), sin.double(), grad.double())[1]
    finally:
        elementwise.core = core
    assert torch.equal(y, other_y)
    assert of_x.dtype == other_of_x.dtype == dtype
    assert distance(of_x, exact) <= distance(other_of_x, exact) + 1e-7


@pytest.mark.parametrize("dtype", TYPES)
def test_threads_change_nothing(dtype):
    x, weight, grad = torch.randn(700, 48).to(dtype), torch.randn(48), torch.randn(700, 48)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = normalised(x, weight, grad)
        torch.set_num_threads(3)
        shared = normalised(x, weight, grad)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))


def test_rows_that_do_not_lie_together():
    x, weight = torch.randn(8, 6, 4), torch.randn(8)
    grad = torch.randn(4, 6, 8)
    for found, expected in zip(
        normalised(x.transpose(0, 2), weight, grad.transpose(0, 0)),
        normalised(x.transpose(0, 2).contiguous(), weight, grad),
        strict=True,
    ):
        assert torch.equal(found, expected)


def test_angles_that_lie_otherwise(plain):
    x, grad = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    cos, sin = rotary_angles(torch.arange(10).view(2, 5), 8, 100.0)
    sin = sin.transpose(-1, -2).contiguous().transpose(-1, -2)
    for found, expected in zip(turned(x, cos, sin, grad), plain(turned, x, cos, sin, grad), strict=True):
        torch.testing.assert_close(found, expected)


def test_no_rows():
    x = torch.randn(0, 8, requires_grad=True)
    norm = RMSNorm(8, 1e-5)
    norm(x).sum().backward()
    assert torch.equal(norm.weight.grad, torch.zeros(8))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_that_are_not_finite_are_seen(number, dtype):
    x = torch.ones(2, 16, dtype=dtype)
    x[1, 3] = number
    y, of_x, of_weight = normalised(x, torch.ones(16), torch.ones(2, 16))
    assert y[0].isfinite().all()
    assert not y[1].isfinite().all()
    assert not of_x[1].isfinite().all()
    assert not of_weight.isfinite().all()


def test_when():
    x, weight = torch.ones(2, 8), torch.nn.Parameter(torch.ones(8))
    assert is_elementwise(x, weight)
    assert is_elementwise(x.bfloat16(), weight)
    assert not is_elementwise(x.double(), weight)
    assert not is_elementwise(x, weight.bfloat16())
    assert not is_elementwise(x.to("meta"), weight)
    assert not is_elementwise(torch.nn.Buffer(x).as_subclass(type("Other", (torch.Tensor,), {})), weight)
    with torch.no_grad():
        assert not is_elementwise(x, weight)

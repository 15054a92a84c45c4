"""Linear layers through the native core, against float64 and row by row."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bytelm.nn import linear as module
from bytelm.nn import native
from bytelm.nn.fused import FusedLinear
from bytelm.nn.linear import Linear, linear

pytestmark = pytest.mark.usefixtures("unit")
needs_core = pytest.mark.skipif(native.core is None, reason="no native core here")


@pytest.fixture(autouse=True)
def _core_for_any_number_of_rows(monkeypatch):
    """As on processors that cannot multiply bfloat16."""
    monkeypatch.setattr(native, "has_unit", False)


ROWS = (1, 2, 3, 4, 5, 7, 8, 9, 13)
SHAPES = ((6, 16), (7, 32), (11, 48), (16, 16), (17, 80), (33, 4112), (19, 8192))


class Codes(torch.Tensor):
    """A stand-in for a weight of torchao: codes in int8, one scale per output."""

    @staticmethod
    def of(codes, scale):
        found = torch.empty(codes.shape, dtype=torch.bfloat16).as_subclass(Codes)
        found.qdata, found.scale = codes, scale[:, None]
        return found


def bf16(*shape):
    return torch.randn(shape).to(torch.bfloat16)


@pytest.fixture
def calls(monkeypatch):
    """Products that go through the native core."""
    found = []
    run = module._rows_linear
    monkeypatch.setattr(module, "_rows_linear", lambda *args: found.append(args) or run(*args))
    return found


def rounded(exact):
    """Half a unit in the last place of bfloat16, and what the sums in float32 may have lost."""
    return exact.abs() * 2**-8 + 1e-5 * exact.abs().max()


def sixteen_bits(x):
    """Rows of which each group of 128 inputs is in whole 32767ths of its largest, and these units."""
    groups = [x[:, i : i + 128].double() for i in range(0, x.shape[1], 128)]
    units = [g.abs().amax(1, keepdim=True) / 32767 for g in groups]
    whole = [(g / unit).round() * unit for g, unit in zip(groups, units, strict=True)]
    return torch.cat(whole, 1), torch.cat([u.expand_as(g) for u, g in zip(units, groups, strict=True)], 1)


@needs_core
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("kind", ["bf16", "int8"])
@torch.no_grad()
def test_products_are_rounded_once_and_rows_do_not_depend_on_each_other(kind, with_bias, calls):
    for (outputs, inputs), rows in itertools.product(SHAPES, ROWS):
        x, bias = bf16(rows, inputs), bf16(outputs) if with_bias else None
        if kind == "bf16":
            weight = bf16(outputs, inputs)
            exact = x.double() @ weight.double().t()
        else:
            weight = Codes.of(torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8), torch.randn(outputs))
            exact = sixteen_bits(x)[0] @ (weight.qdata.double() * weight.scale.double()).t()
        exact = exact if bias is None else exact + bias.double()
        found = linear(x, weight, bias)
        assert found.dtype == torch.bfloat16
        assert ((found.double() - exact).abs() <= rounded(exact)).all(), (outputs, inputs, rows)
        alone = torch.cat([linear(row[None], weight, bias) for row in x])
        assert torch.equal(found, alone), (outputs, inputs, rows)
    assert len(calls) == len(SHAPES) * (len(ROWS) + sum(ROWS))


@needs_core
@torch.no_grad()
def test_int8_products_lose_less_to_sixteen_bits_than_to_the_rounding_of_results():
    """Also where one input of a group is 100 times the others, as in the residual stream of trained models."""
    torch.manual_seed(3)
    weight = Codes.of(torch.randint(-128, 128, (64, 4096), dtype=torch.int8), torch.ones(64))
    for most in (1.0, 100.0):
        x = bf16(8, 4096)
        x[:, ::128] *= most
        exact = x.double() @ weight.qdata.double().t()
        found, (_, unit) = linear(x, weight), sixteen_bits(x)
        lost = (found.double() - exact).abs()
        assert (lost <= rounded(exact) + unit / 2 @ weight.qdata.double().abs().t()).all()
        alone = (exact.to(torch.bfloat16).double() - exact).square().mean().sqrt()
        assert lost.square().mean().sqrt() < 1.1 * alone


@needs_core
@torch.no_grad()
def test_int8_products_of_zeros_of_tiny_numbers_and_of_what_is_not_finite():
    weight = Codes.of(torch.randint(1, 128, (8, 272), dtype=torch.int8), torch.ones(8))
    x = torch.zeros(5, 272, dtype=torch.bfloat16)
    x[1, 7], x[2, 130], x[3, 271], x[4, 0] = 1e-40, float("inf"), float("nan"), -(2.0**100)
    found = linear(x, weight)
    assert (found[0] == 0).all()
    assert (found[1].abs() < 1e-37).all()
    assert not found[2].isfinite().any()
    assert found[3].isnan().all()
    expected = -(2.0**100) * weight.qdata[:, 0].double()
    assert torch.allclose(found[4].double(), expected, rtol=2**-8)


@needs_core
@pytest.mark.parametrize("kind", ["bf16", "int8"])
@torch.no_grad()
def test_one_input_reaches_one_output(kind):
    """Every place of a matrix, on its own: what a wrong order of loads or a wrong edge would move."""
    outputs, inputs = 21, 4096 + 48
    codes = torch.zeros(outputs, inputs, dtype=torch.bfloat16 if kind == "bf16" else torch.int8)
    weight = codes if kind == "bf16" else Codes.of(codes, torch.ones(outputs))
    for place in range(0, outputs * inputs, 997):
        o, i = divmod(place, inputs)
        codes[o, i] = 3
        x = torch.zeros(3, inputs, dtype=torch.bfloat16)
        x[1, i] = 0.5
        expected = torch.zeros(3, outputs, dtype=torch.bfloat16)
        expected[1, o] = 1.5
        assert torch.equal(linear(x, weight), expected)
        codes[o, i] = 0


@needs_core
@torch.no_grad()
def test_rounding_is_to_the_nearest_and_ties_to_even():
    x = torch.zeros(1, 16, dtype=torch.bfloat16)
    x[0, :2] = 1.0
    weight = torch.zeros(6, 16, dtype=torch.bfloat16)
    weight[:, 0] = torch.tensor([1.0, 1.0, 256.0, 258.0, float("inf"), float("nan")])
    weight[:, 1] = torch.tensor([2**-9, 2**-7, 1.0, 1.0, 1.0, 1.0])
    exact = (weight[:, 0].float() + weight[:, 1].float()).to(torch.bfloat16)
    found = linear(x, weight)[0]
    assert torch.equal(found[:5], exact[:5])
    assert exact[2:4].tolist() == [256.0, 260.0]
    assert found[5].isnan()


@needs_core
@torch.no_grad()
def test_shapes_views_and_threads(calls):
    weight, x = bf16(40, 64), bf16(2, 3, 64)
    expected = linear(x.flatten(0, 1), weight).unflatten(0, (2, 3))
    assert torch.equal(linear(x, weight), expected)
    assert torch.equal(linear(x.transpose(0, 1), weight), expected.transpose(0, 1))
    assert torch.equal(linear(x, weight[:30]), expected[..., :30])
    assert linear(x[:0], weight).shape == (0, 3, 40)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(linear(x, weight), expected)
    finally:
        torch.set_num_threads(before)
    assert len(calls) == 6


@torch.no_grad()
def test_everything_else_is_torch(calls):
    for x, weight in [
        (torch.randn(2, 32), torch.randn(8, 32)),
        (bf16(2, 24), bf16(8, 24)),
        (bf16(2, 32), bf16(3, 32)),
        (bf16(2, 32), bf16(32, 8).t()),
    ]:
        assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert calls == []


def test_gradients_are_those_of_torch(calls):
    torch.manual_seed(1)
    ours = Linear(32, 8).to(torch.bfloat16)
    theirs = nn.Linear(32, 8).to(torch.bfloat16)
    theirs.load_state_dict(ours.state_dict())
    x = bf16(2, 32)
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    assert torch.equal(ours.weight.grad, theirs.weight.grad)
    assert calls == []


@needs_core
@torch.no_grad()
def test_fused_layers_use_it(calls):
    fused = FusedLinear(32, (8, 16), bias=True).to(torch.bfloat16)
    first, second = fused(bf16(2, 32))
    assert (first.shape, second.shape, len(calls)) == ((2, 8), (2, 16), 1)


@needs_core
@pytest.mark.parametrize("codes", [False, True])
def test_the_operation_is_one_that_torch_compile_knows(codes):
    weight = torch.randint(-9, 9, (8, 32), dtype=torch.int8) if codes else bf16(8, 32)
    for bias in (None, bf16(8)):
        arguments = (bf16(2, 3, 32), weight, torch.randn(8) if codes else None, bias)
        torch.library.opcheck(
            torch.ops.bytelm.rows_linear.default, arguments, test_utils=("test_schema", "test_faketensor")
        )


def test_without_the_core_all_is_torch(monkeypatch):
    monkeypatch.setattr(native, "core", None)
    x, weight = bf16(3, 64), bf16(8, 64)
    with torch.no_grad():
        assert torch.equal(linear(x, weight), F.linear(x, weight))


@needs_core
@pytest.mark.parametrize("more", [0, 1])
def test_more_than_a_few_rows_are_torchs_where_the_processor_multiplies_bfloat16(more, monkeypatch):
    called = []
    monkeypatch.setattr(native, "has_unit", True)
    monkeypatch.setattr(module, "_rows_linear", lambda *args: called.append(args) or args[0][:, :48])
    with torch.no_grad():
        linear(torch.randn(native.FEW_ROWS + more, 64).bfloat16(), torch.randn(48, 64).bfloat16())
    assert len(called) == 1 - more

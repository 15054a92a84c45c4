"""Mergers in one call of the native core, against the modules."""

import pytest
import torch
from support import tiny_config

from bytelm.hub.int8 import quantise_tables
from bytelm.model.axes import MatchConfig, NgramConfig
from bytelm.model.build import build_model
from bytelm.model.ends import MergerConfig, MLPMergerConfig
from bytelm.nn import native
from bytelm.nn.windows import ABSENT

pytestmark = [
    pytest.mark.skipif(native.core is None, reason="the core was not built"),
    pytest.mark.usefixtures("unit"),
]
TABLES = {
    "none": None,
    "wide": NgramConfig(orders=(1, 3, 6), rows=97),
    "narrow": NgramConfig(orders=(2, 3), rows=97, row_width=16),
    "matches": NgramConfig(orders=(2,), rows=97, row_width=16, matches=MatchConfig(lengths=(1, 2), reach=6)),
}


def merger_of(dtype, kind="mlp", tables="none", int8=False):
    options = {"byte_width": 16, "tables": TABLES[tables]}
    config = MLPMergerConfig(inner=32, **options) if kind == "mlp" else MergerConfig(**options)
    model = build_model(tiny_config(merger=config), 3)
    for parameter in model.merger.parameters():
        parameter.data *= 8
    model = model.to(dtype).eval()
    if int8:
        quantise_tables(model)
    return model.merger


def symbols_of(*shape):
    symbols = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1))
    symbols[0, :2] = ABSENT  # where a text has not begun
    symbols[1] %= 3  # where it repeats itself
    return symbols


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["concat", "mlp"])
@pytest.mark.parametrize(
    ("tables", "int8"),
    [("none", False), ("wide", False), ("narrow", False), ("wide", True), ("narrow", True), ("matches", False)],
)
@torch.inference_mode()
def test_vectors_are_those_of_the_modules(tables, int8, kind, dtype, monkeypatch):
    merger, symbols = merger_of(dtype, kind, tables, int8), symbols_of(5, 8)
    found = merger(symbols)
    assert found.dtype == dtype
    for row in range(5):
        assert torch.equal(merger(symbols[row : row + 1]), found[row : row + 1])
    with monkeypatch.context() as patch:
        patch.setattr(native, "core", None)
        expected = merger(symbols)
        exact = merger.double()(symbols) if not int8 else expected
    scale = exact.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=scale * (2**-6 if dtype is torch.bfloat16 else 1e-5))
    if not int8:
        own, theirs = ((x.double() - exact).abs().mean() for x in (found, expected))
        assert own <= 1.5 * theirs + 1e-9


@torch.no_grad()
def test_the_core_is_asked_where_it_can_and_only_there(monkeypatch):
    calls = []

    class Core:
        def __getattr__(self, name):
            calls.append(name)
            return getattr(core, name)

    core = native.core
    monkeypatch.setattr(native, "core", Core())
    merger, symbols = merger_of(torch.float32, tables="narrow"), symbols_of(3, 8)
    merger(symbols)
    assert calls == ["merge"]
    calls.clear()
    merger(symbols_of(native.MANY_ROWS + 1, 8))
    with torch.enable_grad():
        merger(symbols)
    merger.tables.register_forward_hook(lambda *_: None)
    merger(symbols)
    assert "merge" not in calls


@torch.inference_mode()
def test_a_symbol_without_an_embedding():
    merger, symbols = merger_of(torch.float32), symbols_of(3, 8)
    symbols[1, 5] = 256
    with pytest.raises(IndexError, match="symbol: found 256, expected 0 to 255"):
        merger(symbols)

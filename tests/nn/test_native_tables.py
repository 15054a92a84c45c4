"""Sums of the rows of n-gram tables in one call of the native core, against their definition in torch."""

import pytest
import torch

from bytelm.nn import native
from bytelm.nn.matches import Matches
from bytelm.nn.ngram import ChosenNgrams, Int8Rows, NgramTables, ngram_keys
from bytelm.nn.windows import ABSENT

pytestmark = pytest.mark.skipif(native.core is None, reason="the core was not built")
ORDERS = 2, 3, 5


def symbols_of(*shape):
    symbols = torch.randint(0, 70_000, shape, generator=torch.Generator().manual_seed(1))
    symbols[0, ..., :-3] = ABSENT  # where a text has not begun
    symbols[1] %= 3  # where it repeats itself
    return symbols


def tables_of(kind, dtype, *, row_width=None, matches=False, int8=False):
    found = kind(ORDERS, 40, 32, row_width, Matches((1, 2, 6), 3, 9, 500) if matches else None).to(dtype)
    if kind is ChosenNgrams:
        symbols = symbols_of(3, 2, 12)
        found.choose(torch.cat([ngram_keys(symbols[..., -n:]).flatten() for n in ORDERS]).unique()[::2])
    if int8:
        found.table = Int8Rows(found.table.weight.data)
    return found


def definition(tables, symbols):
    return tables.table(tables.rows_of(symbols)).sum(dim=-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", [NgramTables, ChosenNgrams])
@pytest.mark.parametrize("row_width", [None, 16])
@pytest.mark.parametrize("matches", [False, True])
@pytest.mark.parametrize("int8", [False, True])
@torch.inference_mode()
def test_sums_are_those_of_the_definition(kind, dtype, row_width, matches, int8):
    tables, symbols = tables_of(kind, dtype, row_width=row_width, matches=matches, int8=int8), symbols_of(3, 2, 12)
    found = tables._in_core(symbols)
    assert found.shape == (3, 2, row_width or 32)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found, definition(tables, symbols), rtol=0, atol=0.05 if dtype != torch.float32 else 1e-5
    )
    assert torch.equal(tables.sum_of_rows(symbols), found)
    assert torch.equal(tables.sum_of_rows(symbols[1:2, :1]), found[1:2, :1])
    assert torch.equal(tables.sum_of_rows(symbols.transpose(0, 1)), found.transpose(0, 1))
    other = symbols.clone()
    other[..., -1] += 1
    assert not torch.allclose(tables.sum_of_rows(other).float(), found.float(), atol=0.1)


@torch.no_grad()
def test_the_core_sums_where_it_can_and_only_there(monkeypatch):
    calls = []

    class Core:
        def __getattr__(self, name):
            calls.append(name)
            return getattr(core, name)

    core = native.core
    monkeypatch.setattr(native, "core", Core())
    tables, symbols = tables_of(NgramTables, torch.float32), symbols_of(3, 12)
    tables(symbols)
    assert calls == ["sums"]
    calls.clear()
    tables(symbols_of(native.MANY_ROWS + 1, 12))
    tables(symbols, symbols[:, :1])
    tables(symbols.int())
    with torch.enable_grad():
        assert tables(symbols).requires_grad
    tables_of(NgramTables, torch.float32, row_width=8)(symbols)
    tables.double()(symbols)
    tables.float().table.register_forward_hook(lambda *_: None)
    tables(symbols)
    assert calls == []

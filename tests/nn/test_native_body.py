"""Blocks of a body and chained heads in the native core, against the modules: as near to float64 as they are."""

import copy
import gc
import weakref
from collections import Counter

import pytest
import torch
from support import tiny_config, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from bytelm.model.build import build_model
from bytelm.model.config import RotaryConfig
from bytelm.model.reading import forward
from bytelm.nn import native
from bytelm.nn.kv_cache import CacheView
from bytelm.nn.linear import Linear
from bytelm.nn.native_body import run_blocks

pytestmark = [
    pytest.mark.skipif(native.core is None, reason="the core was not built"),
    pytest.mark.usefixtures("unit"),
]
TYPES = [torch.float32, torch.bfloat16]
SHAPES = [
    pytest.param(1, 1, None, id="one"),
    pytest.param(1, 5, None, id="a draft"),
    pytest.param(2, 3, None, id="a batch"),
    pytest.param(3, 1, [5, 0, 2], id="some streams"),
    pytest.param(2, 4, [1, 0], id="streams and drafts"),
    pytest.param(6, 5, None, id="many rows"),
]


class Core:
    """The core; counts what is called."""

    def __init__(self, core):
        self.core, self.calls = core, Counter()

    def __getattr__(self, name):
        function = getattr(self.core, name)

        def call(*args):
            self.calls[name] += 1
            return function(*args)

        return call


@pytest.fixture
def core(monkeypatch):
    counting = Core(native.core)
    monkeypatch.setattr(native, "core", counting)
    return counting


def model_of(dtype, **changes):
    torch.manual_seed(1)
    return tiny_model(scale=2.0, **changes).to(dtype).requires_grad_(False)


def inputs(batch, steps, rows):
    generator = torch.Generator().manual_seed(batch * 8 + steps)
    windows = torch.randint(0, 256, (batch, steps, 4), generator=generator)
    positions = 9 + 2 * torch.arange(batch)[:, None] + torch.arange(steps)
    return windows, None if rows is None else torch.tensor(rows), positions


@torch.no_grad()
def read(model, batch, steps, rows, num_slots=21, last_seen=None):
    """States, and the keys and values of all blocks after the forward, of a cache that held noise."""
    windows, rows, positions = inputs(batch, steps, rows)
    cache = model.new_cache(6 if rows is not None else batch, 24)
    generator = torch.Generator().manual_seed(0)
    for part in (*cache.keys, *cache.values):
        part.copy_(torch.randn(part.shape, generator=generator))
    h_BTD = forward(model, windows, cache, rows, positions, num_slots, last_seen)
    return h_BTD, torch.stack([*cache.keys, *cache.values])


def plainly(monkeypatch, function, *args):
    with monkeypatch.context() as patch:
        patch.setattr(native, "core", None)
        return function(*args)


def near(found, expected):
    return all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected, strict=True))


def error(found, exact):
    return ((found.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("batch", "steps", "rows"), SHAPES)
@pytest.mark.parametrize("turned", [None, 8])
def test_states_and_cache_are_as_near_as_those_of_the_modules(turned, batch, steps, rows, dtype, core, monkeypatch):
    model = model_of(dtype, position=RotaryConfig(width=turned))
    found = read(model, batch, steps, rows)
    assert core.calls["body"] == 1
    assert not core.calls["attention"]
    other = plainly(monkeypatch, read, model, batch, steps, rows)
    exact = read(copy.deepcopy(model).double(), batch, steps, rows)
    for mine, theirs, expected in zip(found, other, exact, strict=True):
        assert mine.dtype == theirs.dtype == dtype
        assert error(mine, expected) < 2 * error(theirs, expected) + 2e-7


@pytest.mark.parametrize("dtype", TYPES)
def test_a_row_is_the_same_alone_and_among_others(dtype, core):
    model = model_of(dtype)
    _, rows, positions = inputs(3, 2, [5, 0, 2])
    x_BTD = torch.randn(3, 2, 32).to(dtype)
    cache = model.new_cache(6, 24)
    for part in (*cache.keys, *cache.values):
        part.copy_(torch.randn(part.shape))

    def through_blocks(row, step):
        view = CacheView(cache, rows[row], positions[row, step], 24)
        return run_blocks(model.blocks, model.position, x_BTD[row, step], view.positions, view)

    with torch.no_grad():
        together = through_blocks(slice(None), slice(None))
        for b in range(3):
            for t in range(2):
                assert torch.equal(through_blocks(slice(b, b + 1), slice(t, t + 1))[0, 0], together[b, t])
    assert core.calls["body"] == 7


@pytest.mark.parametrize("dtype", TYPES)
def test_slots_that_are_not_seen_change_nothing(dtype):
    model = model_of(dtype)
    assert torch.equal(read(model, 1, 2, None, num_slots=11)[0], read(model, 1, 2, None, num_slots=24)[0])


@pytest.mark.parametrize("dtype", TYPES)
def test_positions_that_see_further(dtype, core, monkeypatch):
    """As in a prompt that sees all of itself."""
    model, last_seen = model_of(dtype), torch.tensor([[12, 12, 12], [14, 13, 20]])
    found, _ = read(model, 2, 3, None, last_seen=last_seen)
    assert core.calls["body"] == 1
    other, _ = plainly(monkeypatch, read, model, 2, 3, None, 21, last_seen)
    exact, _ = read(copy.deepcopy(model).double(), 2, 3, None, last_seen=last_seen)
    assert error(found, exact) < 2 * error(other, exact) + 2e-7
    assert error(read(model, 2, 3, None)[0], exact) > 0.01


@pytest.mark.parametrize("dtype", TYPES)
def test_threads_change_nothing(dtype):
    model, before = model_of(dtype), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(read(model, 2, 3, None))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize("known", range(4))
def test_heads(known, tables, dtype, core, monkeypatch):
    model = model_of(dtype, tables=tables)
    generator = torch.Generator().manual_seed(known)
    h_BTD = torch.randn(2, 3, 32, generator=generator).to(dtype)
    window, prefix = (torch.randint(0, 256, (2, 3, n), generator=generator) for n in (4, known))
    with torch.no_grad():
        found = model.heads.step(h_BTD, window, prefix)
        assert core.calls["head"] == 1
        other = plainly(monkeypatch, model.heads.step, h_BTD, window, prefix)
        exact = copy.deepcopy(model).double().heads.step(h_BTD.double(), window, prefix)
        alone = model.heads.step(h_BTD[1, 2], window[1, 2], prefix[1, 2])
    assert found.dtype == other.dtype
    assert error(found, exact) < 2 * error(other, exact) + 2e-7
    assert torch.equal(alone, found[1, 2])


def biased(model):
    model.blocks[1].attention.output.bias = torch.nn.Parameter(torch.zeros(32))


def by_columns(model):
    weight = model.blocks[1].feedforward.gate_up.weight
    weight.data = weight.data.t().contiguous().t()


def hooked(model):
    model.blocks[0].feedforward.register_forward_hook(lambda *_: None)


def wrapped(model):
    model.blocks[1].feedforward.down = torch.nn.Sequential(model.blocks[1].feedforward.down)


def called_otherwise(model):
    attention = model.blocks[1].attention
    attention.forward = attention.forward


def parametrised(model):
    torch.nn.utils.parametrize.register_parametrization(model.blocks[1].feedforward.down, "weight", torch.nn.Identity())


def of_another_class(model):
    class Doubled(Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model.blocks[1].feedforward.down.__class__ = Doubled


CHANGES = [parametrised, of_another_class, biased, by_columns, hooked, wrapped, called_otherwise]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_what_the_core_cannot_read_is_left_to_the_modules(change, known, core, monkeypatch):
    model = model_of(torch.float32)
    if known:
        read(model, 1, 1, None)
        assert core.calls.pop("body") == 1
    change(model)
    found = read(model, 1, 1, None)
    assert not core.calls["body"]
    assert near(found, plainly(monkeypatch, read, model, 1, 1, None))


def test_weights_that_are_put_in_their_place_are_read(core, monkeypatch):
    model = model_of(torch.float32)
    read(model, 1, 1, None)
    layer = model.blocks[1].feedforward
    layer.gate_up.weight = torch.nn.Parameter(layer.gate_up.weight.flip(0), requires_grad=False)
    layer.down.weight.data = layer.down.weight.flip(1)
    norm, model.blocks[0].attention_norm = model.blocks[0].attention_norm, copy.deepcopy(model.blocks[1].attention_norm)
    model.blocks[0].attention_norm.weight.data.mul_(2)
    model.norm = norm
    found = read(model, 1, 1, None)
    assert core.calls["body"] == 2
    assert near(found, plainly(monkeypatch, read, model, 1, 1, None))


def test_models_are_not_kept():
    model = model_of(torch.float32)
    read(model, 1, 1, None)
    blocks = weakref.ref(model.blocks)
    del model
    gc.collect()
    assert blocks() is None


def test_weights_elsewhere_are_left_to_torch(core):
    model = model_of(torch.float32)
    model.blocks.to("meta")
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        read(model, 1, 1, None)
    assert not core.calls["body"]


def test_hooks_of_heads_are_called(core):
    model, seen = model_of(torch.float32), []
    model.heads.prefix_mlps[0].register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        model.heads.step(torch.randn(1, 32), torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long))
    assert seen == [1]
    assert not core.calls["head"]


def test_gradients_many_rows_and_autocast_are_left_to_the_modules(core):
    model = model_of(torch.float32)
    windows, _, positions = inputs(1, native.MANY_ROWS + 1, None)
    with torch.no_grad():
        forward(model, windows, model.new_cache(1, 48), None, positions, 48)
        with torch.autocast("cpu", torch.bfloat16):
            forward(model, windows[:, :1], model.new_cache(1, 24), None, positions[:, :1], 24)
    forward(model, windows[:, :1], model.new_cache(1, 24), None, positions[:, :1], 24)
    assert not core.calls["body"]


def test_up_to_how_many_rows(monkeypatch):
    monkeypatch.setattr(native, "has_unit", True)
    with torch.no_grad():
        for dtype in TYPES:
            for width, most in ((native.NARROW, native.MANY_ROWS), (2 * native.NARROW, native.FEW_ROWS)):
                assert native.takes(torch.zeros(most, width, dtype=dtype))
                assert not native.takes(torch.zeros(most + 1, width, dtype=dtype))
        assert not native.takes(torch.zeros(0, 16))
        assert not native.takes(torch.zeros(1, 16, dtype=torch.float64))
        monkeypatch.setattr(native, "has_unit", False)
        assert native.takes(torch.zeros(99, 2 * native.NARROW, dtype=torch.bfloat16))
        assert not native.takes(torch.zeros(99, 2 * native.NARROW))


def test_operations_are_seen_by_those_who_count_them(core):
    model = model_of(torch.float32)
    with FlopCounterMode(display=False) as counter:
        read(model, 1, 1, None)
    assert not core.calls
    products = sum(p.numel() for block in model.blocks for p in block.parameters() if p.dim() == 2)
    assert counter.get_total_flops() > 2 * products


def test_widths_that_the_core_does_not_know(core):
    config = tiny_config(attention=tiny_config().attention.__class__(num_heads=4, num_kv_heads=2, head_width=8))
    model = build_model(config, 0).eval().requires_grad_(False)
    read(model, 1, 1, None)
    assert not core.calls["body"]


def test_what_is_outside_is_refused():
    model = model_of(torch.float32)
    windows, _, positions = inputs(1, 1, None)
    with torch.no_grad():
        with pytest.raises(IndexError, match="position in the cache: found 24, expected 0 to 23"):
            forward(model, windows, model.new_cache(1, 24), None, positions + 15, 25)
        with pytest.raises(IndexError, match="row of the cache: found 1, expected 0 to 0"):
            forward(model, windows, model.new_cache(1, 24), torch.tensor([1]), positions, 24)
        with pytest.raises(IndexError, match="symbol: found 999"):
            model.heads.step(torch.randn(1, 32), torch.zeros(1, 4, dtype=torch.long), torch.tensor([[999]]))

import dataclasses

import numpy as np
import pytest
import slow_model
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_config

from bytelm.model import build_model
from bytelm.nn.attention import Attention
from bytelm.nn.feedforward import SwiGLU
from bytelm.nn.merger import ConcatMerger, MLPMerger
from bytelm.nn.ngram import Int8Rows, NgramTables, ngram_keys
from bytelm.nn.position import Rotary
from bytelm.nn.rotary import rotary_angles, rotate

ALPHA = 1e-4


def module_weights(module, prefix):
    return {f"{prefix}.{name}": tensor.double().numpy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("head_width", [2, 6, 16])
@pytest.mark.parametrize("base", [10_000.0, 50.0])
def test_rotary_is_a_complex_rotation(head_width, base):
    x = torch.randn(2, 3, 5, head_width)
    positions = torch.tensor([[0, 1, 2, 3, 4], [7, 100, 3, 2_879, 3]])
    turned = rotate(x, *rotary_angles(positions, head_width, base))
    for b, h, t in np.ndindex(2, 3, 5):
        expected = slow_model.turn(x[b, h, t].double().numpy(), int(positions[b, t]), base)
        np.testing.assert_allclose(turned[b, h, t].numpy(), expected, atol=5e-4 if positions[b, t] > 1_000 else 1e-5)
    shared = rotate(x, *rotary_angles(positions[1], head_width, base))
    assert torch.equal(shared[1], turned[1])


def test_rotary_scores_depend_on_the_distance_alone():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def turned(x, position):
        return rotate(x, *rotary_angles(torch.tensor([position]), 8, 100.0))

    def score(at_q, at_k):
        return float((turned(q, at_q) * turned(k, at_k)).sum())

    assert score(9, 4) == pytest.approx(score(25, 20), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(25, 19), abs=1e-3)


def test_norm_is_root_mean_square_with_the_configured_eps():
    config = tiny_config()
    config = dataclasses.replace(config, norm=dataclasses.replace(config.norm, eps=0.1))
    norm = build_model(config).norm
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, 32))
    x = torch.randn(2, 3, 32) * 0.3
    expected = slow_model.rms_norm(x.double().numpy(), norm.weight.detach().double().numpy(), 0.1)
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1), (6, 2), (1, 1)])
def test_attention_equals_a_loop_over_heads_and_queries(heads, kv_heads):
    sizes = tiny_config().attention
    sizes = dataclasses.replace(sizes, num_heads=heads, num_kv_heads=kv_heads, head_width=6)
    attention = Attention(10, heads, kv_heads, 6)
    x = torch.randn(2, 7, 10)
    y = attention(x, Rotary(6, 100.0)(torch.arange(7), None), 0, None)
    for b in range(2):
        expected = slow_model.attention(x[b].double().numpy(), module_weights(attention, "a"), "a", sizes, 100.0)
        np.testing.assert_allclose(y[b].detach().numpy(), expected, atol=1e-5)


def test_swiglu():
    layer = SwiGLU(6, 11)
    x = torch.randn(2, 3, 6)
    w = module_weights(layer, "f")
    inner = x.double().numpy()
    gate, up = np.split(inner @ w["f.gate_up.weight"].T, 2, axis=-1)
    expected = (slow_model.silu(gate) * up) @ w["f.down.weight"].T
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-6)


def test_merger_concatenates_in_order():
    merger = ConcatMerger(256, 4, 3, 8, None)
    windows = torch.tensor([[[1, 2, 3, 4], [200, 0, 255, 7]]])
    w = module_weights(merger, "m")
    for t in range(2):
        joined = np.concatenate([w["m.embedding.weight"][b] for b in windows[0, t].tolist()])
        np.testing.assert_allclose(merger(windows)[0, t].detach(), w["m.projection.weight"] @ joined, atol=1e-6)


def test_mlp_merger_adds_a_layer_to_the_projection():
    merger = MLPMerger(256, 4, 3, 8, NgramTables((2, 4), 13, 8), 5)
    windows = torch.tensor([[[1, 2, 3, 4], [200, 0, 255, 7]]])
    w = module_weights(merger, "m")
    for t in range(2):
        joined = np.concatenate([w["m.embedding.weight"][b] for b in windows[0, t].tolist()])
        expected = w["m.projection.weight"] @ joined
        expected = expected + w["m.down.weight"] @ slow_model.silu(w["m.up.weight"] @ joined)
        expected = expected + merger.tables(windows[0, t]).detach().numpy()
        np.testing.assert_allclose(merger(windows)[0, t].detach(), expected, atol=1e-6)


@given(st.lists(st.binary(min_size=1, max_size=6), min_size=1), st.integers(1, 70_000))
def test_ngram_keys_equal_python_integers(strings, num_rows):
    for string in strings:
        assert int(ngram_keys(torch.tensor(list(string)))) % num_rows == slow_model.ngram_row(string, num_rows)


def test_ngram_keys_of_many_axes_and_another_type():
    data = torch.randint(0, 256, (3, 5, 4))
    keys = ngram_keys(data)
    assert keys.shape == (3, 5)
    assert torch.equal(keys, ngram_keys(data.int()))
    assert int(keys[1, 2]) == slow_model.ngram_row(data[1, 2].tolist(), 2**32)


def test_ngram_tables_sum_one_row_of_each_order():
    tables = NgramTables((3, 1), 13, 4)
    string = [9, 250, 17, 3, 8]
    config = dataclasses.replace(tiny_config("chained", True).merger.tables, orders=(3, 1), rows=13)
    expected = slow_model.table_sum(
        {"x.tables.table.weight": tables.table.weight.detach().double().numpy()}, "x", config, string
    )
    np.testing.assert_allclose(tables(torch.tensor([string]))[0].detach(), expected, atol=1e-6)


def test_int8_rows_are_within_half_a_step_of_the_table():
    table = torch.randn(300, 12) * torch.logspace(-6, 3, 300)[:, None]
    table[7] = 0
    table[8, 3:] = 0
    rows = Int8Rows(table)
    found = rows(torch.arange(300).view(20, 15)).view(300, 12)
    step = table.abs().amax(-1, keepdim=True) / 127
    assert ((found - table).abs() <= step * 0.5001).all()
    assert torch.equal(found[7], table[7])
    assert int(rows.codes_RD.abs().max()) == 127
    assert rows.codes_RD.dtype == torch.int8
    assert sum(b.nbytes for b in rows.buffers()) == 300 * (12 + 4)
    assert Int8Rows(table.to(torch.bfloat16))(torch.tensor([5])).dtype == torch.bfloat16


def spread_p(rows, num_rows):
    """P-value of the counts per row under an even spread (chi-square)."""
    counts = torch.bincount(rows, minlength=num_rows).double()
    mean = len(rows) / num_rows
    statistic = ((counts - mean) ** 2 / mean).sum()
    half = torch.tensor((num_rows - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(half, statistic / 2))


def structured_ngrams(n):
    """The kind of n-grams that a dense code has: every lead byte of a small range, every last byte, little else."""
    axes = [torch.arange(200, 248), torch.arange(200), torch.tensor([5, 6, 7]), torch.tensor([201, 202])]
    return torch.cartesian_prod(*axes[:n]).view(-1, n)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("num_rows", [512, 1_000, 1_021])
def test_ngram_hash_spreads_over_rows(n, num_rows):
    """False alarms: 1e-4 for each of 9 sets. A weak hash (a sum, or one byte alone) is caught."""
    ngrams = structured_ngrams(n)
    assert spread_p(ngram_keys(ngrams) % num_rows, num_rows) > ALPHA
    assert spread_p(ngrams.sum(-1) % num_rows, num_rows) < 1e-12
    assert spread_p(ngrams[:, 1] * 257 % num_rows, num_rows) < 1e-12

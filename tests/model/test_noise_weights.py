"""Weights of models that are built for speed alone, and how matrices lie in memory."""

import itertools

import pytest
import torch
from support import gptj_config, tiny_config
from torch import nn

from bytelm.model import build as build_module
from bytelm.model import build_model
from bytelm.model.build import build_noise_model
from bytelm.model.config import ModelConfig
from bytelm.model.layout import lay_out_for_decoding
from bytelm.model.presets import get_preset

ALIBI = {"position": {"kind": "alibi"}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [tiny_config(tables=True), get_preset("gptj-toy"), gptj_config(tied=True)])
def test_noise_has_the_deviation_of_fresh_weights(config, dtype, monkeypatch):
    monkeypatch.setattr(build_module, "_NOISE", 4_099)
    noise, fresh = build_noise_model(config, dtype), build_model(config)
    expected = dict(fresh.named_parameters())
    assert list(dict(noise.named_parameters())) == list(expected)
    for name, parameter in noise.named_parameters():
        assert (parameter.dtype, parameter.shape) == (dtype, expected[name].shape)
        if parameter.dim() == 1:
            assert torch.equal(parameter.float(), expected[name])
        elif parameter.numel() > 500:
            assert parameter.float().std().item() == pytest.approx(expected[name].std().item(), rel=0.2)
            rows = parameter.float() @ parameter.float().t()
            assert (rows / rows.diagonal().outer(rows.diagonal()).sqrt() - torch.eye(len(rows))).max() < 0.999
    windows = torch.zeros(1, 3, config.patch, dtype=torch.int64)
    assert noise(windows).isfinite().all()


def test_no_two_weights_share_memory():
    model = build_noise_model(get_preset("gptj-toy"), torch.bfloat16)
    storages = [parameter.untyped_storage() for parameter in model.parameters()]
    assert len({storage.data_ptr() for storage in storages}) == len(storages)
    assert all(s.nbytes() == 2 * p.numel() for s, p in zip(storages, model.parameters(), strict=True))


def test_slopes_of_alibi_are_computed():
    config = ModelConfig.from_dict({**get_preset("gptj-toy").to_dict(), **ALIBI})
    noise, fresh = build_noise_model(config, torch.bfloat16), build_model(config)
    assert torch.equal(noise.position.slopes, fresh.position.slopes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layout_moves_no_value(dtype):
    """Wide matrices of float32 by columns, all others by rows, however they lay before."""
    sizes = [(8, 4), (4, 8), (6, 6)]
    model = nn.Sequential(*(nn.Linear(inputs, outputs) for outputs, inputs in sizes)).to(dtype)
    values = [layer.weight.detach().clone() for layer in model]
    for by_columns in (False, True):
        for layer in model if by_columns else ():
            layer.weight.data = layer.weight.data.t().contiguous().t()
        lay_out_for_decoding(model)
        for layer, value, (outputs, inputs) in zip(model, values, sizes, strict=True):
            assert torch.equal(layer.weight, value)
            wide = dtype == torch.float32 and outputs > inputs
            assert layer.weight.stride() == ((1, outputs) if wide else (inputs, 1))


def test_the_block_of_noise_falls_on_other_places_of_each_row():
    widths = {config.width for config in (get_preset("gptj-6b"), get_preset("1.3b"))}
    for width, factor in itertools.product(widths, (1, 4)):
        assert build_module._NOISE % (width * factor) != 0

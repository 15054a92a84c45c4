"""The MLP that reads state and rows of n-grams in a model of tokens."""

import dataclasses

import numpy as np
import pytest
import torch
from slow_model import rms_norm, silu, table_sum, weights
from support import bytes_kept, tiny_config

from bytelm.benchmarks.activations import Activations
from bytelm.errors import ConfigError
from bytelm.model.build import build_model
from bytelm.model.config import ModelConfig, NgramConfig
from bytelm.model.twins import token_twin

VOCAB = 90


def make_config(row_width=None, head_inner=24):
    tables = NgramConfig(orders=(1, 3), rows=53, row_width=row_width)
    return token_twin(tiny_config(), VOCAB, 64, head_tables=tables, head_inner=head_inner)


@pytest.fixture(params=[None, 6], ids=["wide", "narrow"])
def model(request):
    model = build_model(make_config(request.param), seed=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0 if parameter.dim() > 1 else 1.3)
    return model.eval()


def test_states_are_those_of_the_definition(model):
    tokens, streams = torch.randint(0, VOCAB, (12,)), []
    hook = model.blocks[-1].register_forward_hook(lambda _module, _inputs, x: streams.append(x[0].detach()))
    found = model(tokens[None, :, None])[0].detach()
    hook.remove()
    w, eps, tables = weights(model), model.config.norm.eps, model.config.heads.tables
    named = {name.replace("state_tables", "state.tables"): weight for name, weight in w.items()}
    for t, x in enumerate(streams[0].numpy()):
        rows = table_sum(named, "state", tables, [*[-1] * 9, *tokens[: t + 1].tolist()])
        told = np.concatenate([rms_norm(x, w["state_mlp.norm.weight"], eps), rows])
        change = w["state_mlp.mlp.down.weight"] @ silu(w["state_mlp.mlp.up.weight"] @ told)
        added = rows if tables.row_width is None else named["state.tables.projection.weight"] @ rows
        expected = rms_norm(x + added + change, w["norm.weight"], eps)
        np.testing.assert_allclose(found[t], expected, atol=1e-4)


def test_an_mlp_that_is_not_asked_is_noticed(model):
    """Negative control of the definition above."""
    tokens = torch.randint(0, VOCAB, (1, 12, 1))
    before = model(tokens)
    model.state_mlp.mlp.down.weight.data.zero_()
    assert not torch.allclose(model(tokens), before, atol=1e-2)


def test_parameters_are_counted(model):
    assert model.config.num_parameters() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("row_width", [None, 6])
def test_activations_are_what_autograd_keeps(row_width, monkeypatch):
    monkeypatch.setattr("bytelm.nn.elementwise.core", None)
    tokens = torch.randint(0, VOCAB, (3, 16, 1))
    found, planned = [], []
    for inner in (None, 24):
        config = make_config(row_width, inner)
        model = build_model(config)
        found.append(bytes_kept(model, lambda model=model: model(tokens)))
        planned.append(Activations(config=config, positions=16, windows=3, precision="32-true").total())
    assert found[1] - found[0] == planned[1] - planned[0] > 0


def test_a_configuration_keeps_it_and_says_what_it_lacks():
    config = make_config()
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"mixed: found True, expected false where there are no tables"):
        dataclasses.replace(config.heads, tables=None)
    with pytest.raises(ConfigError, match=r"inner: found 0, expected a number > 0"):
        dataclasses.replace(config.heads, inner=0)

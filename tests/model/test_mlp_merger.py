"""The nonlinear merger in a whole model: against numpy, uncached, and where the plain one is its special case."""

import dataclasses

import numpy as np
import pytest
import slow_model
import torch
from support import BOS, naive_generate, random_bytes, tiny_config, tiny_model

from bytelm.decoding import NoDrafter, Sampling, decode
from bytelm.model import build_model
from bytelm.model.ends import MLPMergerConfig
from bytelm.model.targets import make_target

MLP = MLPMergerConfig(byte_width=16, inner=32, tables=tiny_config("chained", True).merger.tables)


@pytest.fixture(scope="module")
def model():
    return tiny_model("chained", True, merger=MLP)


def test_states_are_those_of_the_definition(model):
    data = random_bytes(20, 1)
    found = model(torch.from_numpy(data.astype(np.int64)).view(1, -1, 4))[0]
    np.testing.assert_allclose(found.detach(), slow_model.states(model, data), atol=1e-4)


@pytest.mark.parametrize("law", ["chain", "next"])
def test_generation_equals_a_naive_uncached_loop(law, model):
    prompts, sampling = [random_bytes(n, n) for n in (5, 0, 3)], Sampling(do_sample=True)
    expected, _ = naive_generate(model, law, prompts, sampling, 7, seed=3)
    run = decode(make_target(model, law, BOS), prompts, max_new=7, sampling=sampling, drafter=NoDrafter(), seed=3)
    assert [s.tolist() for s in run.symbols] == [e.tolist() for e in expected]


def test_parameters_are_counted():
    config = tiny_config("chained", True, merger=MLP)
    for size in (config, dataclasses.replace(config, width=48)):
        assert size.num_parameters() == sum(p.numel() for p in build_model(size, device="meta").parameters())


def test_without_its_layer_it_is_the_plain_merger(model):
    plain = tiny_model("chained", True)
    state = model.state_dict()
    assert plain.load_state_dict(state, strict=False).unexpected_keys == ["merger.up.weight", "merger.down.weight"]
    other = tiny_model("chained", True, merger=MLP)
    other.load_state_dict({**state, "merger.down.weight": torch.zeros_like(state["merger.down.weight"])})
    windows = torch.randint(0, 256, (2, 3, 4))
    assert torch.equal(plain(windows), other(windows))
    assert not torch.allclose(plain(windows), model(windows))

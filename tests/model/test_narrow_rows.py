"""N-gram tables whose rows are narrower than the model: against numpy, uncached, and counted."""

import dataclasses

import numpy as np
import pytest
import slow_model
import torch
from support import BOS, naive_generate, random_bytes, tiny_config, tiny_model

from bytelm.decoding import HeadsDrafter, NoDrafter, Sampling, decode
from bytelm.errors import ConfigError
from bytelm.model import build_model
from bytelm.model.axes import NgramConfig
from bytelm.model.targets import make_target

PLAIN = tiny_config("chained", True)
NARROW = dataclasses.replace(PLAIN.merger.tables, row_width=6)
PARTS = {
    "merger": dataclasses.replace(PLAIN.merger, tables=NARROW),
    "heads": dataclasses.replace(PLAIN.heads, tables=NARROW),
}


@pytest.fixture(scope="module")
def model():
    return tiny_model("chained", True, **PARTS)


def test_states_and_logits_are_those_of_the_definition(model):
    data = random_bytes(20, 1)
    found = model(torch.from_numpy(data.astype(np.int64)).view(1, -1, 4))[0]
    np.testing.assert_allclose(found.detach(), slow_model.states(model, data), atol=1e-4)
    for told in range(4):
        window, prefix = torch.from_numpy(data[-4:].astype(np.int64)), torch.arange(told)
        logits = model.heads.step(found[-1], window, prefix)
        expected = slow_model.head_logits(model, found[-1].detach().numpy(), window.tolist(), prefix.tolist())
        np.testing.assert_allclose(logits.detach(), expected, atol=1e-4)


@pytest.mark.parametrize("law", ["chain", "next"])
def test_generation_equals_a_naive_uncached_loop(law, model):
    prompts, sampling = [random_bytes(n, n) for n in (5, 0, 3)], Sampling(do_sample=True)
    expected, _ = naive_generate(model, law, prompts, sampling, 7, seed=3)
    for drafter in (NoDrafter(), *([HeadsDrafter(3)] if law == "next" else [])):
        run = decode(make_target(model, law, BOS), prompts, max_new=7, sampling=sampling, drafter=drafter, seed=3)
        assert [s.tolist() for s in run.symbols] == [e.tolist() for e in expected]


@pytest.mark.parametrize("parts", [("merger",), ("heads",), ("merger", "heads")], ids="+".join)
def test_parameters_are_counted(parts):
    config = dataclasses.replace(PLAIN, **{name: PARTS[name] for name in parts})
    for size in (config, dataclasses.replace(config, width=48)):
        assert size.num_parameters() == sum(p.numel() for p in build_model(size, device="meta").parameters())


def test_a_row_has_at_least_one_number():
    with pytest.raises(ConfigError, match="row_width: found 0, expected a number > 0"):
        NgramConfig(row_width=0)
    assert NgramConfig().row_numbers(32) == 32
    assert NgramConfig(row_width=6).row_numbers(32) == 6

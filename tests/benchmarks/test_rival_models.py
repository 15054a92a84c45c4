"""GPT-J of transformers on the tensors of ours: the same function, and hardly any memory of its own."""

import dataclasses

import numpy as np
import pytest
import torch
from support import gptj_toy

from bytelm.benchmarks.rival_models import build_gptj, build_rival, describe_rival, gptj_settings
from bytelm.model import PRESETS
from bytelm.model.axes import NormConfig

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def pair():
    """Our model with weights of order 1, and theirs on them."""
    lm = gptj_toy(torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.25
    return lm, build_rival(transformers, lm)


@torch.no_grad()
def test_logits_are_the_same(pair):
    lm, rival = pair
    ids = torch.randint(0, 512, (2, 23))
    windows = ids[..., None]
    ours = lm.model.heads.step(lm.model(windows), windows, windows[..., :0])
    assert ours.abs().max() > 1
    torch.testing.assert_close(rival(ids).logits, ours, atol=2e-5, rtol=1e-5)


def test_greedy_tokens_are_the_same(pair):
    lm, rival = pair
    out = lm.generate(["A stone by the sea"], max_new_tokens=24, draft="none", eos_token_id=())
    prompt = torch.from_numpy(lm.tokenizer.encode("A stone by the sea"))[None]
    theirs = rival.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False)
    np.testing.assert_array_equal(out.ids[0], theirs[0, prompt.shape[1] :])
    assert len(set(out.ids[0].tolist())) > 3


def test_tensors_are_shared_but_for_queries_and_keys(pair):
    lm, rival = pair
    ours = {parameter.untyped_storage().data_ptr() for parameter in lm.model.parameters()}
    own = {n for n, p in rival.named_parameters() if p.untyped_storage().data_ptr() not in ours}
    blocks = range(lm.config.num_blocks)
    assert own == {f"transformer.h.{i}.attn.{part}_proj.weight" for i in blocks for part in "qk"}
    assert not any(tensor.is_meta for tensor in (*rival.parameters(), *rival.buffers()))
    assert not rival.training


def test_a_changed_weight_is_theirs_too():
    """Of the other kind: what has memory of its own would not follow."""
    lm = gptj_toy(torch.float32)
    rival = build_gptj(transformers, lm.model, gptj_settings(lm.config))
    ids = torch.arange(5)[None]
    with torch.no_grad():
        before = rival(ids).logits
        lm.model.blocks[1].feedforward.down.weight.fill_(0.1)
        assert not torch.equal(rival(ids).logits, before)


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_a_gptj(name):
    config = PRESETS[name]
    assert (gptj_settings(config) is not None) == name.startswith("gptj-")
    assert describe_rival(config).startswith("GPT-J" if name.startswith("gptj-") else "a Llama")


@pytest.mark.parametrize(
    "change",
    [{"wiring": "sequential"}, {"norm": NormConfig(kind="rms")}, {"prompt": "prefix"}],
    ids=lambda c: next(iter(c)),
)
def test_what_is_none(change):
    assert gptj_settings(dataclasses.replace(PRESETS["gptj-toy"], **change)) is None


def test_rows_without_a_token_do_not_matter():
    assert gptj_settings(dataclasses.replace(PRESETS["gptj-toy"], vocab_size=500))["vocab_size"] == 512

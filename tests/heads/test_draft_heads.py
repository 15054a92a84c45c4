import dataclasses

import numpy as np
import pytest
import torch
from support import tiny_config

from bytelm.errors import ConfigError
from bytelm.model import ModelConfig, build_model
from bytelm.model.build import add_draft_heads
from bytelm.model.byte_lm import draft_nats
from bytelm.model.ends import DraftHeadsConfig

SIZES = {
    "width": 16,
    "num_blocks": 1,
    "attention": {"num_heads": 2, "num_kv_heads": 1, "head_width": 8},
    "feedforward": {"inner": 24},
    "merger": {"kind": "token", "num_rows": 37},
    "patch": 1,
    "vocab_size": 31,
    "context": 40,
}
KINDS = ["shared", "own"]
LM_HEADS = [{}, {"bias": True, "scale": 0.25}, {"tied": True}]


def model_of(unembedding="shared", lm_head=(), num_heads=3, trained=True):
    """A model of tokens with draft heads; ``trained``: whose weights are random, and larger than fresh ones."""
    heads = {"kind": "lm", "num_rows": 37, **dict(lm_head)}
    drafts = {"num_heads": num_heads, "unembedding": unembedding}
    model = build_model(ModelConfig.from_dict({**SIZES, "heads": heads, "draft_heads": drafts}), 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if trained or not name.startswith("draft_heads."):
                parameter.copy_(torch.randn(parameter.shape))
    if not trained:
        model.draft_heads.start_as(model.lm_head)
    return model.eval()


def tokens(rows=2, length=11):
    return torch.randint(0, 31, (rows, length), generator=torch.Generator().manual_seed(0))


def slow_logits(model, h, k):
    """Logits of head k (from 0) on a state, as the paper's formula has them, in float64."""
    weights = {name: w.detach().double().numpy() for name, w in model.state_dict().items()}
    width, rows = len(h), model.config.vocab_size
    z = weights["draft_heads.residual.weight"][k * width : (k + 1) * width] @ h
    z = h + z / (1 + np.exp(-z))
    own = f"draft_heads.unembeddings.{k}.unembedding"
    name = own if f"{own}.weight" in weights else "heads.unembedding"
    bias = weights[f"{name}.bias"][:rows] if f"{name}.bias" in weights else 0
    return (weights[f"{name}.weight"][:rows] @ z + bias) * model.config.heads.scale


@pytest.mark.parametrize("lm_head", LM_HEADS)
@pytest.mark.parametrize("unembedding", KINDS)
@torch.no_grad()
def test_logits_are_those_of_the_formula_whatever_the_leading_dimensions(unembedding, lm_head):
    model = model_of(unembedding, lm_head)
    h = torch.randn(2, 4, 16)
    logits = model.draft_heads(h, model.lm_head)
    assert logits.shape == (2, 4, 3, 31)
    for b, t, k in np.ndindex(2, 4, 3):
        expected = slow_logits(model, h[b, t].double().numpy(), k)
        np.testing.assert_allclose(logits[b, t, k].numpy(), expected, atol=1e-4)  # logits up to 50
    torch.testing.assert_close(model.draft_heads(h[1], model.lm_head), logits[1])


@pytest.mark.parametrize("lm_head", LM_HEADS)
@pytest.mark.parametrize("unembedding", KINDS)
@torch.no_grad()
def test_untrained_heads_guess_what_the_model_predicts(unembedding, lm_head):
    for model in (model_of(unembedding, lm_head, trained=False), model_of(num_heads=1, lm_head=lm_head)):
        add_draft_heads(model, DraftHeadsConfig(num_heads=3, unembedding=unembedding))
        logits, law = model.predict_drafts(tokens())
        torch.testing.assert_close(logits, law[:, :, None].expand_as(logits), atol=1e-4, rtol=1e-5)
        assert law.std() > 0.5


@pytest.mark.parametrize("unembedding", KINDS)
@torch.no_grad()
def test_nats_are_those_of_the_later_law_position_by_position(unembedding):
    model = model_of(unembedding)
    logits, law = model.predict_drafts(tokens())
    nats = draft_nats(logits, law)
    assert nats.shape == (2, 8, 3)
    for b, t, k in np.ndindex(*nats.shape):
        p = law[b, t + 1 + k].double().softmax(-1)
        expected = -(p * logits[b, t, k].double().log_softmax(-1)).sum()
        torch.testing.assert_close(nats[b, t, k].double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("unembedding", KINDS)
def test_gradients_reach_the_heads_alone(unembedding):
    model = model_of(unembedding)
    model.requires_grad_(False)
    model.draft_heads.requires_grad_(True)
    draft_nats(*model.predict_drafts(tokens())).mean().backward()
    for name, parameter in model.named_parameters():
        if name.startswith("draft_heads."):
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


def test_heads_in_float32_beside_a_model_in_bfloat16():
    model = model_of().to(torch.bfloat16)
    model.draft_heads.float()
    draft_nats(*model.predict_drafts(tokens())).mean().backward()
    assert model.draft_heads.residual.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("lm_head", LM_HEADS)
@pytest.mark.parametrize("unembedding", KINDS)
def test_config_counts_and_round_trips(unembedding, lm_head):
    config = model_of(unembedding, lm_head).config
    assert ModelConfig.from_yaml(config.to_yaml()) == config
    plain = dataclasses.replace(config, draft_heads=None)
    more, less = (sum(p.numel() for p in build_model(c, device="meta").parameters()) for c in (config, plain))
    assert (config.num_parameters(), plain.num_parameters()) == (more, less)
    if unembedding == "shared":
        assert more - less == 3 * 16 * 16


def test_the_rest_of_the_model_is_the_same_to_the_bit_without_them():
    model = model_of(trained=False)
    config = dataclasses.replace(model.config, draft_heads=None)
    plain, more = build_model(config, 3), build_model(model.config, 3)
    assert plain.draft_heads is None
    assert all(torch.equal(tensor, more.state_dict()[name]) for name, tensor in plain.state_dict().items())


def test_what_they_do_not_go_with_is_refused():
    with pytest.raises(ConfigError, match=r"^heads\.kind: found 'chained', expected 'lm', beside which draft_heads"):
        tiny_config(draft_heads=DraftHeadsConfig())
    with pytest.raises(ConfigError, match=r"^draft_heads\.num_heads: found 0, expected a number > 0"):
        DraftHeadsConfig.from_dict({"num_heads": 0}, "draft_heads")
    with pytest.raises(ConfigError, match=r"^draft_heads\.unembedding: found 'none', expected one of 'shared', 'own'"):
        DraftHeadsConfig.from_dict({"unembedding": "none"}, "draft_heads")

import dataclasses

import numpy as np
import pytest
import slow_model
import torch
from support import BOS, random_bytes, tiny_config, tiny_model
from torch.nn import functional as F

from bytelm.errors import ConfigError
from bytelm.model import ModelConfig, build_model
from bytelm.model.blocks import StatesBlock
from bytelm.model.byte_lm import soft_cross_entropy
from bytelm.model.ends import NextPatchConfig
from bytelm.model.targets import make_target

NEXT_PATCH = NextPatchConfig(byte_width=6, inner=20, depth=3)


def model_with(tables=False, **changes):
    return tiny_model("chained", tables, next_patch=dataclasses.replace(NEXT_PATCH, **changes))


def data(rows=2, patches=7):
    return torch.from_numpy(random_bytes(rows * patches * 4).reshape(rows, -1))


@torch.no_grad()
def test_guess_equals_the_formula_whatever_the_leading_dimensions():
    model = model_with()
    h, patches = torch.randn(3, 5, 32), torch.randint(0, 256, (3, 5, 4))
    guesses = model.next_patch(h, patches)
    assert guesses.shape == (3, 5, 32)
    for b, t in np.ndindex(3, 5):
        slow = slow_model.next_patch(model, h[b, t].double().numpy(), patches[b, t].numpy())
        np.testing.assert_allclose(guesses[b, t].numpy(), slow, atol=1e-5)
        torch.testing.assert_close(model.next_patch(h[b, t], patches[b, t]), guesses[b, t], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.next_patch(h[1], patches[1]), guesses[1], atol=1e-5, rtol=1e-5)


def bytewise(tables=True):
    """Patches of one byte, so that n-grams are longer than a patch."""
    return tiny_model("chained", tables, patch=1, next_patch=NEXT_PATCH)


@pytest.mark.parametrize(("make", "patch"), [(model_with, 4), (lambda: model_with(True), 4), (bytewise, 1)])
@torch.no_grad()
def test_predict_ahead_is_recursion_and_the_heads_position_by_position(make, patch):
    model = make()
    h, windows, targets = model.read(data()[:, : 7 * patch])
    ahead = model.predict_ahead(h, windows, targets)
    assert [tuple(logits.shape) for logits in ahead] == [(2, 6 - n, patch, 256) for n in (1, 2, 3)]
    for t in range(6):
        guess = h[:, t]
        for n in range(1, min(3, 5 - t) + 1):
            guess = model.next_patch(guess, windows[:, t + n, -patch:])
            for j in range(patch):
                step = model.heads.step(guess, windows[:, t + n], targets[:, t + n, :j])
                torch.testing.assert_close(ahead[n - 1][:, t, j], step, atol=1e-4, rtol=1e-4)  # logits up to 300


@torch.inference_mode()
def test_bytes_after_a_patch_of_one_are_drafted_from_guessed_states():
    model = bytewise()
    h, windows, targets = model.read(data(1)[:, :6])
    ahead = [logits[0, 0, 0] for logits in model.predict_ahead(h, windows, targets)]
    assert make_target(model, "next", BOS).max_guess == 4
    guess = StatesBlock(model, 1, h[:, :1], windows[:, :1]).guess(targets[:, 0], torch.tensor([1]))
    for n, logits in enumerate(ahead):
        torch.testing.assert_close(guess.logits(targets[:, 1 : 1 + n, 0])[0], logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_no_drafted_byte_is_seen_before_it_is_predicted():
    model = model_with()
    before = model.predict_ahead(*model.read(data(1)))
    for changed in range(4, 28):
        other = data(1)
        other[0, changed] ^= 1
        for n, (old, new) in enumerate(zip(before, model.predict_ahead(*model.read(other)), strict=True), 1):
            differs = (old != new).any(-1)[0].flatten()  # entry i predicts byte 4 (n + 1) + i
            assert not differs[: max(0, changed - 4 * (n + 1) + 1)].any()
            assert differs[max(0, changed - 4 * (n + 1) + 1) :].any() == (changed < 27)


def test_gradients_reach_the_module_alone():
    model = model_with()
    h, windows, targets = model.read(data())
    logits = model.heads(h, windows, targets)
    h.retain_grad()
    ahead = model.predict_ahead(h, windows, targets)
    sum(soft_cross_entropy(found, logits[:, n:]).mean() for n, found in enumerate(ahead, 1)).backward()
    assert h.grad is None
    for name, parameter in model.named_parameters():
        if name.startswith("next_patch."):
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


def test_the_rest_of_the_model_is_the_same_to_the_bit_without_it():
    config = tiny_config()
    plain, more = (build_model(c, 3) for c in (config, dataclasses.replace(config, next_patch=NEXT_PATCH)))
    assert plain.next_patch is None
    shared = plain.state_dict()
    assert all(torch.equal(tensor, more.state_dict()[name]) for name, tensor in shared.items())
    assert {name.split(".")[0] for name in more.state_dict().keys() - shared.keys()} == {"next_patch"}
    assert torch.equal(plain.patch_nats(data()), more.patch_nats(data()))


def test_soft_cross_entropy_is_its_definition():
    found, law = torch.randn(2, 3, 4, 256, requires_grad=True), torch.randn(2, 3, 4, 256, requires_grad=True)
    nats = soft_cross_entropy(found, law)
    p, q = law.detach().double().softmax(-1), found.detach().double().softmax(-1)
    torch.testing.assert_close(nats.detach().double(), -(p * q.log()).sum(-1), atol=1e-5, rtol=1e-6)
    assert (nats > soft_cross_entropy(law, law)).all()
    nats.sum().backward()
    assert law.grad is None
    targets = torch.randint(0, 256, (2, 3, 4))
    hard = soft_cross_entropy(found, 1e4 * F.one_hot(targets, 256).float())
    torch.testing.assert_close(hard, -found.log_softmax(-1).gather(-1, targets[..., None])[..., 0])


def test_config():
    config = tiny_config(next_patch=NEXT_PATCH)
    assert ModelConfig.from_yaml(config.to_yaml()) == config
    old = tiny_config().to_dict()
    assert old.pop("next_patch") is None
    assert ModelConfig.from_dict(old) == tiny_config()
    with pytest.raises(ConfigError, match=r"^heads\.kind: found 'independent', expected 'chained', which next_patch"):
        tiny_config("independent", next_patch=NEXT_PATCH)


@pytest.mark.parametrize("field", ["byte_width", "inner", "depth"])
def test_bad_sizes_are_named(field):
    with pytest.raises(ConfigError, match=rf"^next_patch\.{field}: found 0, expected a number > 0"):
        NextPatchConfig.from_dict({field: 0}, "next_patch")

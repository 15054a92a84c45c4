"""Activation checkpointing changes what is kept and nothing else."""

import copy

import pytest
import torch
from support import tiny_config

from bytelm.model import build_model
from bytelm.training import ByteLMModule
from bytelm.training.activation_checkpointing import checkpoint_activations


def step(config, *, checkpointing, autocast):
    """Loss, gradients by name, and the number of tensors that autograd was given to keep."""
    model = ByteLMModule(config=config, activation_checkpointing=checkpointing).model
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (2, 132), dtype=torch.uint8, generator=generator)
    kept = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        nats = model.patch_nats(batch).mean()
    nats.backward()
    return nats, {name: p.grad for name, p in model.named_parameters()}, len(kept)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", ["independent", "chained"])
def test_losses_and_gradients_are_the_same_to_the_bit(kind, autocast):
    config = tiny_config(kind)
    nats, gradients, kept = step(config, checkpointing=False, autocast=autocast)
    again, recomputed, fewer = step(config, checkpointing=True, autocast=autocast)
    assert torch.equal(nats, again)
    assert gradients.keys() == recomputed.keys()
    assert all(torch.equal(g, recomputed[name]) for name, g in gradients.items())
    assert kept - fewer >= 10 * config.num_blocks


def test_copies_and_decoding_go_on_as_before():
    model = build_model(tiny_config(), seed=1)
    plain = copy.deepcopy(model)
    checkpoint_activations(model)
    twin = copy.deepcopy(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        for block in twin.blocks:
            block.feedforward.down.weight.zero_()
        windows = torch.arange(32).view(1, 8, 4)
        assert torch.equal(model(windows), plain(windows))
        assert not torch.equal(twin(windows), plain(windows))

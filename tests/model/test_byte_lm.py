import numpy as np
import pytest
import slow_model
import torch
from support import KINDS, random_bytes, tiny_model


@pytest.fixture(params=KINDS, ids=str)
def model(request):
    return tiny_model(*request.param)


@torch.no_grad()
def test_states_and_logits_equal_the_formulas(model):
    data = random_bytes(32)
    windows = torch.from_numpy(data.reshape(1, -1, 4).astype(np.int64))
    states = model(windows)
    expected = slow_model.states(model, data)
    np.testing.assert_allclose(states[0].numpy(), expected, atol=1e-5)
    logits, targets = model.predict(torch.from_numpy(data)[None])
    assert torch.equal(targets, windows[:, 1:])
    for t in range(7):
        for j in range(4):
            told = data[4 * t + 4 :][:j]
            slow = slow_model.head_logits(model, expected[t], data[4 * t :][:4], told)
            np.testing.assert_allclose(logits[0, t, j].numpy(), slow, atol=1e-5 * max(1, np.abs(slow).max()))


@torch.no_grad()
def test_patch_nats_are_cross_entropies_of_predict(model):
    data = torch.from_numpy(random_bytes(3 * 24).reshape(3, 24))
    nats = model.patch_nats(data)
    assert nats.shape == (3, 5, 4)
    logits, targets = model.predict(data)
    expected = -logits.double().log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
    torch.testing.assert_close(nats.double(), expected, atol=1e-5, rtol=1e-6)


@torch.no_grad()
def test_rows_of_a_batch_do_not_mix(model):
    data = torch.from_numpy(random_bytes(3 * 24).reshape(3, 24))
    together = model.patch_nats(data)
    for row in range(3):
        torch.testing.assert_close(model.patch_nats(data[row : row + 1])[0], together[row], atol=1e-5, rtol=1e-5)


def test_all_parameters_get_a_gradient(model):
    model.patch_nats(torch.from_numpy(random_bytes(2 * 64).reshape(2, 64))).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_bfloat16_weights_give_nearly_the_same(model):
    data = torch.from_numpy(random_bytes(64)[None])
    full = model.patch_nats(data)
    half = tiny_model(model.config.heads.kind, model.config.merger.tables is not None).to(torch.bfloat16)
    assert half.new_cache(1, 4).keys[0].dtype == torch.bfloat16
    assert (half.patch_nats(data) - full).abs().mean() < 0.05 * full.abs().mean()

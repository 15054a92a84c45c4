"""Nothing looks ahead: a changed byte leaves every output before it as it was, to the bit."""

import numpy as np
import pytest
import torch
from support import BOS, KINDS, random_bytes, tiny_model

from bytelm.heads import ChainedHeads
from bytelm.model.laws import score_symbols

LENGTH = 23


@torch.no_grad()
def outputs(model, data, phase):
    """(byte before which it must be known, name, values) of every state and of every head's logits of one phase."""
    patch = model.config.patch
    stream = data[phase : phase + (len(data) - phase) // patch * patch]
    windows = torch.from_numpy(stream.reshape(1, -1, patch).astype(np.int64))
    for t, state in enumerate(model(windows)[0]):
        yield phase + (t + 1) * patch, f"state after window {t}", state
    logits, _ = model.predict(torch.from_numpy(stream)[None])
    for t in range(logits.shape[1]):
        for j in range(patch):
            yield phase + (t + 1) * patch + j, f"head {j + 1} after window {t}", logits[0, t, j]


def check_causal(model, phase):
    """Change each byte in turn; outputs that are due before it stay, and some after it change."""
    data = random_bytes(LENGTH)
    before = list(outputs(model, data, phase))
    for t in range(LENGTH):
        changed = data.copy()
        changed[t] ^= 0x55
        after = list(outputs(model, changed, phase))
        moved = []
        for (due, name, old), (_, _, new) in zip(before, after, strict=True):
            same = torch.equal(old, new)
            assert same or due > t, f"phase {phase}: {name} sees byte {t}"
            moved.append(not same)
        last_read = phase + (LENGTH - phase) // 4 * 4
        if phase <= t < last_read:
            assert any(moved), f"phase {phase}: nothing sees byte {t}"


@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_output_sees_a_later_byte(kind, phase):
    check_causal(tiny_model(*kind), phase)


def test_an_attention_without_mask_is_caught(monkeypatch):
    plain = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: plain(*a, **(k | {"is_causal": False}))
    )
    with pytest.raises(AssertionError, match="state after window 0 sees byte 5"):
        check_causal(tiny_model(), 1)


def test_heads_that_read_their_own_byte_are_caught(monkeypatch):
    plain = ChainedHeads.step

    def forward(self, h, windows, targets):
        h, windows, targets = h.flatten(0, 1), windows.flatten(0, 1), targets.roll(-1, 2).flatten(0, 1)
        return torch.stack([plain(self, h, windows, targets[:, :j]) for j in range(4)], 1)[None]

    monkeypatch.setattr(ChainedHeads, "forward", forward)
    with pytest.raises(AssertionError, match="head 2 after window 0 sees byte 5"):
        check_causal(tiny_model(), 0)


@torch.no_grad()
def test_scores_see_no_later_byte(law_and_model):
    law, model = law_and_model
    data = np.concatenate((BOS, random_bytes(LENGTH)))
    old = score_symbols(model, law, [data], [7])[0]
    for t in range(7, len(data)):
        changed = data.copy()
        changed[t] ^= 0x55
        new = score_symbols(model, law, [changed], [7])[0]
        assert np.array_equal(old[: t - 7], new[: t - 7])
        assert old[t - 7] != new[t - 7]

import dataclasses

import numpy as np
import pytest
import torch
from support import KINDS, naive_generate, tiny_config, tiny_model

import bytelm
from bytelm.decoding import Sampling
from bytelm.encoding import get_encoding
from bytelm.hub import save_checkpoint


def shared_model(tables=False, **options):
    """A model whose chained heads share one unembedding."""
    heads = dataclasses.replace(tiny_config("chained", tables).heads, unembedding="shared")
    return tiny_model("chained", tables, heads=heads, **options)


@pytest.fixture(params=[*KINDS, "shared"], ids=str)
def heads(request):
    return (shared_model(True) if request.param == "shared" else tiny_model(*request.param)).heads


def inputs():
    return torch.randn(3, 5, 32), torch.randint(0, 256, (3, 5, 4)), torch.randint(0, 256, (3, 5, 4))


@torch.no_grad()
def test_step_equals_forward(heads):
    h, windows, targets = inputs()
    logits = heads(h, windows, targets)
    assert logits.shape == (3, 5, 4, 256)
    for n in range(4):
        step = heads.step(h.flatten(0, 1), windows.flatten(0, 1), targets.flatten(0, 1)[:, :n]).view(3, 5, 256)
        torch.testing.assert_close(step, logits[:, :, n], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_head_j_sees_the_bytes_before_its_own_and_none_after(heads):
    h, windows, targets = inputs()
    logits = heads(h, windows, targets)
    chained = hasattr(heads, "prefix_mlps")
    for j in range(4):
        changed = targets.clone()
        changed[..., j] = (changed[..., j] + 1) % 256
        differs = (heads(h, windows, changed) != logits).flatten(3).any(-1)
        assert not differs[..., : j + 1].any(), f"head {j + 1} or one before it sees byte {j + 1}"
        assert (differs[..., j + 1 :] == chained).all()


@torch.no_grad()
def test_windows_reach_the_heads_through_tables_alone(heads):
    h, windows, targets = inputs()
    same = torch.equal(heads(h, windows, targets), heads(h, (windows + 1) % 256, targets))
    assert same == (getattr(heads, "tables", None) is None)


@torch.no_grad()
def test_every_head_reads_the_state(heads):
    h, windows, targets = inputs()
    differs = (heads(h, windows, targets) != heads(h * 1.5 + 0.1, windows, targets)).flatten(3).any(-1)
    assert differs.all()
    one = h.clone()
    one[1, 2] += 0.5
    where = (heads(h, windows, targets) != heads(one, windows, targets)).flatten(2).any(-1)
    assert where.nonzero().tolist() == [[1, 2]]


def test_a_shared_unembedding_is_that_of_every_head():
    heads, own = shared_model().heads, tiny_model("chained").heads
    own.load_state_dict(
        {n: t for n, t in heads.state_dict().items() if "unembeddings" not in n}
        | {f"unembeddings.{j}.weight": heads.unembeddings[0].weight for j in range(4)}
    )
    h, windows, targets = inputs()
    assert torch.equal(heads(h, windows, targets), own(h, windows, targets))
    heads(h, windows, targets).square().sum().backward()
    own(h, windows, targets).square().sum().backward()
    every = torch.stack([u.weight.grad for u in own.unembeddings]).sum(0)
    torch.testing.assert_close(heads.unembeddings[0].weight.grad, every, rtol=1e-4, atol=1e-2)  # up to 1e5


def test_a_model_with_a_shared_unembedding_is_written_read_and_generates(tmp_path):
    model = shared_model(True, scale=4.0)
    save_checkpoint(tmp_path / "m", model, get_encoding("utf8"))
    lm = bytelm.load(tmp_path / "m")
    assert lm.config == model.config
    assert all(torch.equal(t, lm.model.state_dict()[n]) for n, t in model.state_dict().items())
    for law in ("chain", "next"):
        found = lm.generate(["ab", "月"], law=law, max_new_tokens=9)
        prompts = [np.frombuffer(text.encode(), np.uint8) for text in ("ab", "月")]
        expected, _ = naive_generate(model, law, prompts, Sampling(), 9, bos=lm.tokenizer.bos_patch())
        for row, whole in zip(found.ids, expected, strict=True):
            assert row.tolist() == whole.tolist()[: len(row)]
            assert len(row) > 6
            assert len(row) == 9 or int(lm.tokenizer.eos[0]) in whole[len(row) - 1 : len(row) + 1]

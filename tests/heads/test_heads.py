import pytest
import torch
from support import KINDS, tiny_model


@pytest.fixture(params=KINDS, ids=str)
def heads(request):
    return tiny_model(*request.param).heads


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

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import KINDS, tiny_config, tiny_model

from bytelm.encoding import get_encoding
from bytelm.model.byte_lm import cross_entropy
from bytelm.model.documents import DocumentBoundaries
from bytelm.nn import document_view
from bytelm.nn.attend import attend
from bytelm.nn.document_view import DocumentView, dense_mask, flex_mask

ENCODING = get_encoding("dense-ja")
BOS, EOS = (ENCODING.controls[name] for name in ("<|bos|>", "<|eos|>"))
BOUNDARIES = DocumentBoundaries(BOS[0])
LAST = "川の向こうで鐘が三つ鳴った。"


def document(text):
    return BOS * 4 + ENCODING.encode(text).tobytes() + EOS


def patches(data, patch=4):
    row = np.frombuffer(data[: len(data) // patch * patch], np.uint8).astype(np.int64)
    return torch.from_numpy(row).view(1, -1, patch)


def slow_starts(lengths, cut, patch, size):
    """For each patch, whether its first byte is of another document than that of the patch before, byte by byte."""
    owners = [number for number, length in enumerate(lengths) for _ in range(4 + length + 1)][cut:]
    firsts = owners[: size // patch * patch : patch]
    return [i == 0 or firsts[i] != firsts[i - 1] for i in range(len(firsts))]


@given(st.lists(st.integers(0, 13), min_size=1, max_size=9), st.integers(0, 30), st.sampled_from([1, 2, 3, 4]))
def test_a_patch_is_of_the_document_of_its_first_byte(lengths, cut, patch):
    stream = b"".join(BOS * 4 + b"\x20" * length + EOS for length in lengths)
    data = stream[cut:]
    if len(data) < patch:
        return
    expected = slow_starts(lengths, cut, patch, len(data))
    windows = patches(data, patch)
    assert BOUNDARIES.starts(windows)[0].tolist() == expected
    view = BOUNDARIES(windows)
    position = -1
    for t, begins in enumerate(expected):
        position = 0 if begins else position + 1
        assert view.positions[0, t] == position
        seen = view.mask_B1TS[0, 0, t].nonzero().flatten().tolist()
        assert seen == list(range(t - position, t + 1))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("phase", range(4))
def test_a_document_is_read_as_if_it_were_alone(kind, phase):
    """Whatever stands before it; without boundaries it is not."""
    model = tiny_model(*kind)
    before = document("雨" * (9 + phase)), document("風" * 5)
    begin = sum(map(len, before))
    first = -(-begin // 4)  # the first patch of which all bytes are the document's own
    rows = [patches(b"".join(before) + document(LAST))]
    changed = b"".join(before).replace(ENCODING.encode("雨").tobytes(), ENCODING.encode("雪").tobytes())
    assert len(changed) == begin
    rows.append(patches(changed + document(LAST)))
    alone = patches(document(LAST)[-begin % 4 :])
    assert BOUNDARIES.starts(rows[0])[0, first]
    with torch.no_grad():
        kept = [model(row, BOUNDARIES(row))[:, first:] for row in rows]
        joined = [model(row)[:, first:] for row in rows]
        apart = model(alone)
    assert torch.equal(kept[0], kept[1])
    torch.testing.assert_close(kept[0], apart, rtol=0, atol=1e-5)
    assert (joined[0] - joined[1]).abs().max() > 1e-3
    assert (joined[0] - apart).abs().max() > 1e-3


def test_a_patch_with_two_documents_belongs_to_the_first_and_reads_on():
    data = document("雨" * 9) + document(LAST)
    assert len(document("雨" * 9)) % 4
    shared = len(document("雨" * 9)) // 4
    starts = BOUNDARIES.starts(patches(data))[0]
    assert starts.nonzero().flatten().tolist() == [0, shared + 1]


def test_losses_and_gradients_are_finite_and_none_comes_from_another_document():
    model = tiny_model("chained", True)
    data = document("雨" * 9) + document(LAST) + document("風")
    row = torch.frombuffer(bytearray(data[: len(data) // 4 * 4]), dtype=torch.uint8)[None]
    h, windows, targets = model.read(row, BOUNDARIES)
    nats = cross_entropy(model.heads(h, windows, targets), targets)
    nats.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    embedded = model.merger(windows).detach().requires_grad_()
    view, x = BOUNDARIES(windows), embedded
    for block in model.blocks:
        x = block(x, model.position(view.positions, view.mask_B1TS), view)
    (second,) = BOUNDARIES.starts(windows)[0, 1:].nonzero().flatten()[:1] + 1
    gradient = torch.autograd.grad(x[:, second:].square().sum(), embedded)[0][0]
    assert torch.equal(gradient[:second], torch.zeros_like(gradient[:second]))
    assert (gradient[second:].abs().amax(-1) > 0).all()


def random_starts(rows, size):
    return torch.rand(rows, size, generator=torch.Generator().manual_seed(3)) < 0.15


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize(("size", "scale"), [(1, None), (37, 0.125), (130, None)])
def test_flex_attention_agrees_with_the_mask(size, scale):
    """Forward alone: on a CPU it has no backward pass."""
    starts = random_starts(3, size)
    first = torch.where(starts, torch.arange(size), 0).cummax(1).values
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(3, heads, size, 16, generator=generator) for heads in (4, 2, 2)]
    ours, flex = (attend(*given, mask, scale) for mask in (dense_mask(first), flex_mask(first)))
    torch.testing.assert_close(ours, flex, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
def test_a_model_reads_the_same_through_flex_attention(monkeypatch):
    model, row = tiny_model("chained"), patches(document("雨" * 9) + document(LAST) + document("風" * 30))
    with torch.no_grad():
        expected = model(row, BOUNDARIES(row))
        monkeypatch.setattr(document_view, "dense_mask", flex_mask)
        view = BOUNDARIES(row)
        assert isinstance(view.mask_B1TS, document_view.FlexMask)
        torch.testing.assert_close(model(row, view), expected, rtol=0, atol=1e-5)


def test_one_document_is_read_as_without_boundaries():
    model, row = tiny_model("chained"), patches(document(LAST))
    view = DocumentView(BOUNDARIES.starts(row))
    assert torch.equal(view.positions[0], torch.arange(row.shape[1]))
    with torch.no_grad():
        torch.testing.assert_close(model(row, view), model(row), rtol=0, atol=1e-6)
    assert tiny_config().context >= 4 * row.shape[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_flex_attention_on_a_gpu_is_the_mask_on_a_cpu():
    generator = torch.Generator().manual_seed(0)
    first_BT = torch.tensor([[0] * 100 + [100] * 156, [*range(256)]])
    q, k, v = (torch.randn(2, heads, 256, 32, generator=generator) for heads in (4, 2, 2))
    expected = attend(q, k, v, dense_mask(first_BT))
    found = attend(q.cuda(), k.cuda(), v.cuda(), flex_mask(first_BT.cuda()))
    torch.testing.assert_close(found.cpu(), expected, atol=2e-3, rtol=2e-3)

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import random_bytes, tiny_model

from bytelm.metrics import BitsPerCharacter, DraftAgreement, HeadAccuracy, HeadBits
from bytelm.model.byte_lm import cross_entropy


def test_a_uniform_law_over_256_values_costs_8_bits():
    targets = torch.from_numpy(random_bytes(2 * 3 * 4)).long().view(2, 3, 4)
    nats = cross_entropy(torch.full((2, 3, 4, 256), -7.5), targets)
    bits, heads = BitsPerCharacter(1.0), HeadBits(4)
    bits.update(nats)
    heads.update(nats)
    assert float(bits.compute()) == pytest.approx(8, abs=1e-6)
    assert heads.compute().tolist() == pytest.approx([8] * 4, abs=1e-6)
    dense = BitsPerCharacter(1.25)
    dense.update(nats)
    assert float(dense.compute()) == pytest.approx(10, abs=1e-6)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 99))
def test_figures_do_not_depend_on_how_batches_are_cut(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(sum(sizes), 3, 4, 16, generator=generator)
    targets = torch.randint(0, 16, (sum(sizes), 3, 4), generator=generator)
    nats = cross_entropy(logits, targets)
    whole = [BitsPerCharacter(1.5), HeadBits(4), HeadAccuracy(4)]
    parts = [BitsPerCharacter(1.5), HeadBits(4), HeadAccuracy(4)]
    for metrics, cuts in ((whole, [sum(sizes)]), (parts, sizes)):
        for n, scores, t in zip(nats.split(cuts), logits.split(cuts), targets.split(cuts), strict=True):
            metrics[0].update(n)
            metrics[1].update(n)
            metrics[2].update(scores, t)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a.compute(), b.compute(), atol=1e-12, rtol=0)


def test_sums_are_float64():
    """In float32 a sum of 1e8 nats stands still when 1 is added."""
    bits = BitsPerCharacter(math.log(2))
    bits.update(torch.tensor([1e8]))
    for _ in range(8):
        bits.update(torch.tensor([1.0]))
    assert float(bits.nats) == 1e8 + 8
    heads = HeadBits(1)
    heads.update(torch.full((1, 1, 1), 1e8))
    heads.update(torch.ones(1, 3, 1))
    assert heads.nats.tolist() == [1e8 + 3]
    assert heads.nats.dtype == bits.compute().dtype == torch.float64


def test_head_accuracy_counts_first_choices():
    logits = torch.zeros(1, 4, 2, 5)
    logits[..., 3] = 1.0
    targets = torch.tensor([[[3, 0], [3, 3], [1, 2], [3, 4]]])
    metric = HeadAccuracy(2)
    metric.update(logits, targets)
    assert metric.compute().tolist() == [0.75, 0.25]
    metric.update(logits[:, :2], targets[:, 1:3])
    assert metric.compute().tolist() == pytest.approx([4 / 6, 2 / 6])
    metric.reset()
    metric.update(logits[:, :1], targets[:, :1])
    assert metric.compute().tolist() == [1.0, 0.0]


def test_bits_of_a_model_are_those_of_its_nats():
    model = tiny_model()
    data = torch.from_numpy(random_bytes(2 * 20).reshape(2, 20))
    with torch.no_grad():
        nats = model.patch_nats(data)
    metric = HeadBits(4)
    metric.update(nats)
    expected = nats.double().mean((0, 1)) / math.log(2)
    torch.testing.assert_close(metric.compute(), expected)


def test_agreement_of_drafts_counted_one_by_one():
    generator = torch.Generator().manual_seed(0)
    greedy = torch.randint(0, 3, (4, 9), generator=generator)
    drafts = torch.randint(0, 3, (4, 9, 2), generator=generator)
    metric = DraftAgreement(2, 5)
    metric.update(drafts[:1], greedy[:1])
    metric.update(drafts[1:], greedy[1:])
    found = metric.compute()
    places = [(b, t) for b in range(4) for t in range(7)]
    for k in range(2):
        later = [int(greedy[b, t + k + 1]) for b, t in places]
        right = [int(drafts[b, t, k]) for b, t in places]
        own = [int(greedy[b, t]) for b, t in places]
        assert float(found["acceptance"][k]) == sum(map(int.__eq__, right, later)) / 28
        assert float(found["untrained"][k]) == sum(map(int.__eq__, own, later)) / 28
        assert float(found["constant"][k]) == max(map(later.count, range(5))) / 28
    first = [bool(drafts[b, t, 0] == greedy[b, t + 1]) for b, t in places]
    both = [one and bool(drafts[b, t, 1] == greedy[b, t + 2]) for one, (b, t) in zip(first, places, strict=True)]
    assert float(found["leading"]) == (sum(first) + sum(both)) / 28
    assert 0 < sum(both) < sum(first)

"""Decoding in bfloat16 through the native core: the same bits alone, in a batch and with drafts."""

import numpy as np
import pytest
import torch
from support import gptj_toy

from bytelm.nn import native

PROMPTS = ["A stone, a stone, a stone", "the sea and the", "b"]


def outputs(lm, prompts, draft, **options):
    out = lm.generate(prompts, max_new_tokens=40, draft=draft, eos_token_id=(), **options)
    return [np.stack((ids, nats)) for ids, nats in zip(out.ids, out.nats, strict=True)], out.stats


def differences(do_sample):
    """Symbols or nats that are not the same bits as alone and without a draft, and how many drafts were accepted."""
    lm = gptj_toy(torch.bfloat16)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    options = {"do_sample": do_sample, "temperature": 0.05}
    different = accepted = 0
    alone = [outputs(lm, [prompt], "none", seed=[7 + i], **options)[0][0] for i, prompt in enumerate(PROMPTS)]
    for draft in ("none", "lookup"):
        rows, stats = outputs(lm, PROMPTS, draft, seed=[7, 8, 9], **options)
        different += sum(int((row != one).any(0).sum()) for row, one in zip(rows, alone, strict=True))
        accepted += stats.accepted
    return different, accepted


@pytest.mark.skipif(native.core is None, reason="no native core here")
@pytest.mark.parametrize("do_sample", [False, True])
def test_outputs_and_nats_are_the_same_bits(do_sample, monkeypatch):
    """Where many rows are the core's, too: those that go to torch have results of their own."""
    monkeypatch.setattr(native, "has_unit", False)
    different, accepted = differences(do_sample)
    assert different == 0
    assert accepted > 5


def test_this_would_notice_products_that_depend_on_the_number_of_rows(monkeypatch):
    monkeypatch.setattr(native, "core", None)
    assert differences(False)[0] > 0

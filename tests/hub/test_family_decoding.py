"""Models of other families under our decoder, against transformers' own forward and generate."""

import dataclasses

import numpy as np
import pytest
import torch
from test_import_weights import CASES, VOCAB, gptj, ours_of, spread

from bytelm.decoding import LookupDrafter, ModelDrafter, Sampling, decode
from bytelm.errors import DecodingError
from bytelm.model.targets import make_target

NO_BOS = np.zeros(0, np.int64)


def prompts(*lengths):
    rng = np.random.default_rng(0)
    return [rng.integers(0, VOCAB, length) for length in lengths]


def target_of(theirs, **changes):
    model = ours_of(theirs).model
    model.config = dataclasses.replace(model.config, **changes)
    return make_target(model, "next", NO_BOS)


@pytest.mark.parametrize("name", CASES)
def test_greedy_rows_are_those_of_generate(name):
    theirs = spread(CASES[name]())
    rows = prompts(5, 1, 9)
    found = decode(target_of(theirs), rows, max_new=20)
    for row, prompt in enumerate(rows):
        options = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        expected = theirs.generate(torch.from_numpy(prompt)[None], **options)[0, len(prompt) :]
        assert found.symbols[row].tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["gptj", "gpt2", "llama"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(do_sample=True)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("prompt", ["causal", "prefix"])
def test_drafts_and_batches_change_nothing(name, sampling, prompt):
    theirs = spread(CASES[name]())
    rows = prompts(6, 2, 6)
    plain = decode(target_of(theirs, prompt=prompt), rows, max_new=24, sampling=sampling, seed=3)
    small = make_target(ours_of(spread(CASES["llama"](), seed=9)).model, "next", NO_BOS)
    for drafter in (LookupDrafter(5, min_match=1), ModelDrafter(small, 3)):
        found = decode(target_of(theirs, prompt=prompt), rows, max_new=24, sampling=sampling, seed=3, drafter=drafter)
        assert [r.tolist() for r in found.symbols] == [r.tolist() for r in plain.symbols]


@torch.no_grad()
def prefix_logits(theirs, ids, prefix):
    """One pass of transformers under the mask of a prefix-LM: position i sees j where j <= i or j < prefix."""
    at = torch.arange(len(ids))
    seen = (at <= at[:, None]) | (at < prefix)
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return theirs(torch.tensor(ids)[None], attention_mask=mask[None, None]).logits[0]


def test_a_prompt_that_is_read_both_ways_then_cached_equals_one_pass():
    theirs = spread(gptj())
    rows = prompts(7, 3, 1)
    found = decode(target_of(theirs, prompt="prefix"), rows, max_new=10)
    causal = decode(target_of(theirs), rows, max_new=10)
    for row, prompt in enumerate(rows):
        whole = [*prompt.tolist(), *found.symbols[row].tolist()]
        logits = prefix_logits(theirs, whole, len(prompt))[len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == found.symbols[row].tolist()
        nats = torch.nn.functional.cross_entropy(logits, torch.from_numpy(found.symbols[row]), reduction="none")
        np.testing.assert_allclose(found.nats[row], nats.numpy(), atol=1e-5)
    assert found.symbols[0].tolist() != causal.symbols[0].tolist()
    assert found.symbols[2].tolist() == causal.symbols[2].tolist(), "one symbol is its own prefix"


def test_symbols_without_a_token_are_never_emitted():
    theirs = spread(gptj())
    with torch.no_grad():
        theirs.lm_head.bias[60:] += 100
    assert (np.stack(decode(target_of(theirs), prompts(4), max_new=12).symbols) >= 60).all()
    model = ours_of(theirs, vocab_size=60).model
    symbols = decode(make_target(model, "next", NO_BOS), prompts(4, 4)[:1], max_new=12).symbols[0]
    assert (symbols < 60).all()


def test_a_prompt_of_nothing_without_bos_is_refused():
    with pytest.raises(DecodingError, match="prompt 1: found no symbols and no BOS"):
        decode(target_of(spread(gptj())), [np.array([1]), NO_BOS], max_new=3)


@pytest.mark.parametrize("name", ["gptj", "gpt2", "llama"])
@torch.no_grad()
def test_rows_of_a_batch_are_those_of_a_left_padded_one(name):
    """Ours are ragged, without padding; theirs are filled on the left, masked, with positions from the first token."""
    theirs = spread(CASES[name]())
    rows = prompts(9, 4, 1)
    found = decode(target_of(theirs), rows, max_new=12)
    whole = [[*row.tolist(), *new.tolist()] for row, new in zip(rows, found.symbols, strict=True)]
    longest = max(map(len, whole))
    ids = torch.tensor([[5] * (longest - len(row)) + row for row in whole])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in whole])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    log_p = theirs(ids, attention_mask=mask, position_ids=positions).logits[:, -13:-1].log_softmax(-1)
    assert log_p.argmax(-1).tolist() == [new.tolist() for new in found.symbols]
    expected = -log_p.gather(-1, ids[:, -12:, None])[..., 0].numpy()
    np.testing.assert_allclose(np.stack(found.nats), expected, atol=1e-5)
    padded = theirs.generate(
        ids[:, :-12],
        attention_mask=mask[:, :-12],
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=5,
    )
    assert padded[:, -12:].tolist() == [new.tolist() for new in found.symbols]

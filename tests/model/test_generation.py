"""Decoding a model is exact: drafts, batches and caches do not show in what comes out."""

import contextlib
import itertools

import numpy as np
import pytest
from support import BOS, TEXTS, naive_generate, random_bytes, tiny_model

from bytelm.decoding import HeadsDrafter, NoDrafter, Sampling, decode
from bytelm.model import reading
from bytelm.model.ends import NextPatchConfig
from bytelm.model.laws import score_symbols
from bytelm.model.targets import make_target

NEW = 11
SAMPLINGS = {
    "greedy": Sampling(),
    "T=1": Sampling(do_sample=True),
    "T=0.8, top-k, top-p": Sampling(do_sample=True, temperature=0.8, top_k=40, top_p=0.9),
}
PROMPTS = [random_bytes(n, n) for n in (5, 0, 3, 18, 2)]


@pytest.fixture(params=SAMPLINGS.values(), ids=SAMPLINGS.keys())
def sampling(request):
    return request.param


def generate(model, law, prompts, sampling, drafter=None, bos=BOS, seed=3):
    drafter = drafter or NoDrafter()
    return decode(make_target(model, law, bos), prompts, max_new=NEW, sampling=sampling, drafter=drafter, seed=seed)


def assert_same(symbols, expected):
    assert [s.tolist() for s in symbols] == [e.tolist() for e in expected]


def test_generation_equals_a_naive_uncached_loop(law_and_model, sampling):
    """Batches of 1 and 5, with and without drafts."""
    law, model = law_and_model
    expected, nats = naive_generate(model, law, PROMPTS, sampling, NEW, seed=3)
    drafters = [NoDrafter(), HeadsDrafter(3)] if law == "next" else [NoDrafter()]
    for batch, drafter in itertools.product((1, 5), drafters):
        run = generate(model, law, PROMPTS[:batch], sampling, drafter)
        assert_same(run.symbols, expected[:batch])
        for found, wanted in zip(run.nats, nats, strict=False):
            np.testing.assert_allclose(found, wanted, atol=1e-4)
        if law != "next":
            assert run.stats.forwards == -(-NEW // 4)


def test_guessed_states_draft_for_patches_of_one_byte(sampling):
    model = tiny_model("chained", True, patch=1, scale=2.0, next_patch=NextPatchConfig(byte_width=6, inner=20))
    expected, _ = naive_generate(model, "next", PROMPTS, sampling, NEW, seed=3)
    for batch in (1, 5):
        run = generate(model, "next", PROMPTS[:batch], sampling, HeadsDrafter(4))
        assert_same(run.symbols, expected[:batch])
        assert run.stats.drafted > 0


def test_drafts_of_a_trained_model_change_the_speed_alone(trained, sampling):
    model, encoding = trained
    bos = np.frombuffer(encoding.controls["<|bos|>"] * 4, np.uint8)
    prompts = [encoding.encode(TEXTS[i % 4][:n]) for i, n in enumerate((6, 0, 3, 9, 4))]
    expected, _ = naive_generate(model, "next", prompts, sampling, NEW, seed=3, bos=bos)
    plain = generate(model, "next", prompts, sampling, NoDrafter(), bos)
    drafted = generate(model, "next", prompts, sampling, HeadsDrafter(3), bos)
    assert_same(plain.symbols, expected)
    assert_same(drafted.symbols, expected)
    assert plain.stats.forwards == NEW
    assert 0 < drafted.stats.accepted < drafted.stats.drafted
    assert sum(drafted.stats.row_forwards) < sum(plain.stats.row_forwards)
    for row, prompt in enumerate(prompts):
        if not sampling.greedy:
            continue
        alone = generate(model, "next", [prompt], sampling, HeadsDrafter(2), bos)
        assert_same(alone.symbols, [expected[row]])


def test_a_batch_equals_its_rows_alone_with_their_seeds(law_and_model):
    law, model = law_and_model
    sampling, seeds = SAMPLINGS["T=1"], [11, 12, 13, 14, 15]
    drafter = HeadsDrafter(3) if law == "next" else NoDrafter()
    together = generate(model, law, PROMPTS, sampling, drafter, seed=seeds)
    for row, prompt in enumerate(PROMPTS):
        alone = generate(model, law, [prompt], sampling, drafter, seed=[seeds[row]])
        assert_same(alone.symbols, [together.symbols[row]])


def test_nats_of_generation_are_those_of_scoring(law_and_model, sampling):
    """The chain rule: every symbol at the price at which it was emitted, for prompts of every length modulo 4."""
    law, model = law_and_model
    run = generate(model, law, PROMPTS, sampling, HeadsDrafter(3) if law == "next" else NoDrafter())
    heads = [np.concatenate((BOS, prompt)) for prompt in PROMPTS]
    assert {len(head) % 4 for head in heads} == {0, 1, 2, 3}
    rows = [np.concatenate((head, symbols)) for head, symbols in zip(heads, run.symbols, strict=True)]
    scored = score_symbols(model, law, rows, [len(head) for head in heads])
    for found, wanted in zip(run.nats, scored, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert found.sum() == pytest.approx(wanted.sum(), rel=1e-5)


@pytest.mark.parametrize("way", ["_read_some", "_read_all"])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_shifted_window_is_caught(monkeypatch, way, shift):
    """Windows read one by one and stream by stream; and the naive loop notices one that is read a byte early."""
    plain, calls = getattr(reading, way), []

    def shifted(forward, model, cache, windows_BNP, columns_BP, *args):
        calls.append(windows_BNP.shape[1])
        return plain(forward, model, cache, windows_BNP, columns_BP + shift * (columns_BP[:, :1] > 8), *args)

    monkeypatch.setattr(reading, way, shifted)
    monkeypatch.setattr(reading, "_is_read_by_row", lambda *_: way == "_read_some")
    model, sampling = tiny_model(), SAMPLINGS["T=1"]
    expected, _ = naive_generate(model, "next", PROMPTS[:1], sampling, NEW, seed=3)
    with pytest.raises(AssertionError) if shift else contextlib.nullcontext():
        assert_same(generate(model, "next", PROMPTS[:1], sampling, HeadsDrafter(3)).symbols, expected)
    assert calls.count(4) > 2

"""Sampled text has the law's distribution: joint chi-square over whole blocks of symbols, through the whole decoder.

Each test looks at the first four symbols of 20,000 rows under the law's exact joint probabilities (81 cells), so it
sees errors of context and of position that marginals hide. Level 1e-4 for each of the ten positive cases, on fixed
seeds: a decoder that is right fails one by chance once in a thousand changes of the noise. The wrong rules below must
be rejected, at a p-value under 1e-12.
"""

import itertools

import numpy as np
import pytest
import torch
from significance import chi_square_p
from table_target import TableLaw, TableTarget, VerifyBlock, last_symbols, warp_reference

from bytelm.decoding import HeadsDrafter, Sampling, decode
from bytelm.decoding.emission import EmissionRule
from bytelm.decoding.noise import GumbelNoise

ALPHA, ROWS, LENGTH, VOCAB = 1e-4, 20_000, 4, 3
LAW, DRAFT = TableLaw(VOCAB, seed=3, scale=1.0), TableLaw(VOCAB, seed=4, scale=1.0)
PROMPT = np.array([2, 1], dtype=np.uint8)
PLAIN = Sampling(do_sample=True)


def joint(sampling):
    """Exact probabilities of all strings of LENGTH symbols after the prompt."""
    cells = []
    for string in itertools.product(range(VOCAB), repeat=LENGTH):
        history, log_p = last_symbols(PROMPT), 0.0
        for symbol in string:
            logits = LAW(torch.tensor([history]))[0].double().tolist()
            log_p += warp_reference(logits, sampling.temperature, sampling.top_k, sampling.top_p)[symbol]
            history = [*history, symbol]
        cells.append(np.exp(log_p))
    return np.array(cells)


def p_value(target, num_draft, sampling=PLAIN, seed=0):
    generation = decode(
        target, [PROMPT] * ROWS, sampling=sampling, max_new=LENGTH, seed=seed, drafter=HeadsDrafter(num_draft)
    )
    strings = np.stack(generation.symbols).astype(np.int64) @ VOCAB ** np.arange(LENGTH - 1, -1, -1)
    return chi_square_p(np.bincount(strings, minlength=VOCAB**LENGTH), joint(sampling)), generation.stats


@pytest.mark.parametrize("draft_law", [LAW, DRAFT], ids=["equal", "unrelated"])
@pytest.mark.parametrize("num_draft", [0, 1, 3])
def test_sampled_strings_have_the_law(num_draft, draft_law):
    p, stats = p_value(TableTarget(LAW, max_draft=num_draft, draft_law=draft_law), num_draft, seed=num_draft)
    assert p > ALPHA
    if num_draft and draft_law is DRAFT:
        assert 0.2 < stats.accepted / sum(stats.judged_at) < 0.9, "drafts must hold and fail for this to test anything"


def test_sampled_patches_have_the_law():
    assert p_value(TableTarget(LAW, patch=True), 0, seed=11)[0] > ALPHA


def test_warped_strings_have_the_warped_law():
    for sampling in (
        Sampling(do_sample=True, temperature=0.6),
        Sampling(do_sample=True, top_k=2),
        Sampling(do_sample=True, temperature=1.4, top_p=0.8),
    ):
        assert p_value(TableTarget(LAW, max_draft=3, draft_law=DRAFT), 3, sampling, seed=21)[0] > ALPHA


def test_acceptance_is_at_least_what_the_coupling_promises():
    _, stats = p_value(TableTarget(LAW, max_draft=1, draft_law=DRAFT), 1, seed=5)
    contexts = torch.tensor(list(itertools.product(range(VOCAB), repeat=2)))
    p, q = LAW(contexts).softmax(-1), DRAFT(contexts).softmax(-1)
    tv = 0.5 * (p - q).abs().sum(-1)
    worst = ((1 - tv) / (1 + tv)).min()
    assert stats.accepted / sum(stats.judged_at) > worst


# Negative controls: wrong decoders that the test must reject ----------------------------------------------------------


class AcceptAllBlock(VerifyBlock):
    """Emits every draft without looking at the law."""

    def covers(self, emitted):
        return torch.ones(len(emitted), dtype=torch.bool)

    def logits(self, emitted):
        n = emitted.shape[1]
        if n < self.draft.shape[1]:
            return torch.nn.functional.one_hot(self.draft[:, n], VOCAB).float().log()
        return self.target.law(torch.cat((self.target.context, self.draft), 1))


class StaleBlock(VerifyBlock):
    """Judges every draft but the first with the context of the one before."""

    def logits(self, emitted):
        n = max(0, emitted.shape[1] - 1)
        return self.target.law(torch.cat((self.target.context, self.draft[:, :n]), 1))


class BlindBlock(VerifyBlock):
    """Does not notice that a draft failed."""

    def covers(self, emitted):
        return torch.ones(len(emitted), dtype=torch.bool)

    def logits(self, emitted):
        return self.target.law(torch.cat((self.target.context, self.draft[:, : emitted.shape[1]]), 1))


@pytest.mark.parametrize("wrong", [AcceptAllBlock, StaleBlock, BlindBlock])
def test_wrong_verification_is_rejected(wrong):
    target = TableTarget(LAW, max_draft=3, draft_law=DRAFT)
    target._block = lambda draft: wrong(target, draft)
    assert p_value(target, 3)[0] < 1e-12


@pytest.mark.parametrize("coarse", [2, 4], ids=["the same at two neighbours", "the same at every position"])
def test_reused_noise_is_rejected(monkeypatch, coarse):
    true_noise = GumbelNoise.__call__

    def reused(self, positions, *rest):
        return true_noise(self, positions // coarse, *rest)

    monkeypatch.setattr(GumbelNoise, "__call__", reused)
    assert p_value(TableTarget(LAW, max_draft=3, draft_law=DRAFT), 3)[0] < 1e-12


def test_redrawing_a_failed_draft_is_rejected(monkeypatch):
    """Accept on equality, but on failure draw afresh instead of emitting what was drawn: a known error of decoders."""
    target, choose = TableTarget(LAW, max_draft=1, draft_law=DRAFT), EmissionRule.choose
    drafts = []

    def block(draft):
        drafts.append(draft)
        return VerifyBlock(target, draft)

    def redraw(self, positions, logits, ahead):
        symbol = choose(self, positions, logits, ahead)
        if ahead >= drafts[-1].shape[1]:
            return symbol
        return torch.where(symbol == drafts[-1][:, ahead, None], symbol, choose(self, positions + 1000, logits, ahead))

    target._block = block
    monkeypatch.setattr(EmissionRule, "choose", redraw)
    assert p_value(target, 1)[0] < 1e-12


def test_a_law_off_by_little_is_rejected():
    off = lambda context: LAW(context) * 1.1  # noqa: E731
    off.vocab = VOCAB
    assert p_value(TableTarget(off), 0)[0] < ALPHA

"""Our decoder broken on purpose: the kit must notice. And how often the coupled rule accepts, to the last digit.

That the decoder as it is passes the same checks is shown in ``tests/testing/test_our_decoder.py``; here each break is
made in one place of the real code, and the checks must fail it, and no others need to.
"""

import itertools

import numpy as np
import pytest
import torch
from wrong_targets import OneOffTarget, StaleTarget

import bytelm.testing as kit
from bytelm.decoding import HeadsDrafter, Sampling, decode, emission
from bytelm.decoding.noise import GumbelNoise
from bytelm.decoding.rules import RULES, rejection

CHECKS = {
    "greedy": kit.check_greedy,
    "distribution": kit.check_distribution,
    "seed identity": kit.check_seed_identity,
}

LAW = kit.ToyLaw.random(5, seed=3, scale=1.0)


def must_fail(decoder, *names):
    """The named checks fail; the distribution far beyond chance."""
    for name in names:
        report = CHECKS[name](decoder)
        assert report.outcome == "failed", f"{name} passed"
        assert "Error" not in report.message, "it must be the check that fails, not the decoder"
        assert name != "distribution" or report.figures["p"] < 1e-12


def law_s_own(log_p, noise):
    return (log_p + noise).argmax(-1)


def accept_all(log_p, noise, proposal):
    return torch.where(proposal.standing, proposal.symbols, law_s_own(log_p, noise.emission))


def redraw(log_p, noise, proposal):
    """What was drawn stays if it is the draft, else another is drawn."""
    own = law_s_own(log_p, noise.emission)
    again = law_s_own(log_p, noise.emission.roll(1, -1))
    return torch.where(proposal.standing & (own != proposal.symbols), again, own)


def judge_filler(log_p, noise, proposal):
    """Rejection that takes the filler after the last draft for a draft."""
    return rejection(log_p, noise, proposal._replace(standing=torch.ones_like(proposal.standing)))


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("wrong", [accept_all, redraw])
def test_a_wrong_rule_is_caught(monkeypatch, wrong, unit):
    monkeypatch.setitem(RULES, "exact", RULES["exact"]._replace(judge=wrong))
    must_fail(kit.Ours(draft_with="heads", unit=unit), "distribution", "seed identity")


def test_a_filler_judged_as_a_draft_is_caught(monkeypatch):
    monkeypatch.setitem(RULES, "rejection", RULES["rejection"]._replace(judge=judge_filler))
    must_fail(kit.Ours(verify="rejection"), "distribution")


def test_a_draft_told_with_the_wrong_law_is_caught(monkeypatch):
    """Rejection is told q at another temperature than the draft was drawn at."""
    plain = emission.DraftChoice.__call__

    def tempered(self, logits, drafted):
        symbol, law = plain(self, logits, drafted)
        return symbol, (law / 1.5).log_softmax(-1)

    monkeypatch.setattr(emission.DraftChoice, "__call__", tempered)
    must_fail(kit.Ours(verify="rejection"), "distribution")


def reuse_noise(monkeypatch, place):
    """Give position n the noise of position ``place(n)``."""
    plain = GumbelNoise.__call__

    def reused(self, positions, count, vocab, device=None):
        wanted = torch.from_numpy(place(positions[:, None] + np.arange(count)))
        window = plain(self, np.zeros_like(positions), int(wanted.max()) + 1, vocab, device)
        return window[torch.arange(len(positions))[:, None], wanted]

    monkeypatch.setattr(GumbelNoise, "__call__", reused)


@pytest.mark.parametrize(
    "place", [lambda n: n // 2, lambda n: n % 3], ids=["the same at two neighbours", "again after three"]
)
def test_reused_noise_is_caught(monkeypatch, place):
    reuse_noise(monkeypatch, place)
    must_fail(kit.Ours(), "distribution")


def test_noise_that_is_not_reused_changes_nothing(monkeypatch):
    """Positive control of the test above: every position keeps its own noise."""
    job = kit.Job(law=LAW, prompts=((1, 2),) * 9, max_new=30, seeds=tuple(range(9)), temperature=1.0)
    plain = kit.Ours()(job)
    reuse_noise(monkeypatch, lambda n: n)
    assert kit.Ours()(job) == plain


def test_streams_that_are_one_are_caught(monkeypatch):
    """Rejection needs noise to draft with that verifying does not use."""
    plain = GumbelNoise.__init__
    monkeypatch.setattr(GumbelNoise, "__init__", lambda self, seeds, stream=0: plain(self, seeds))
    must_fail(kit.Ours(verify="rejection"), "distribution")


def test_noise_that_counts_from_the_round_is_caught(monkeypatch):
    plain = GumbelNoise.__call__
    monkeypatch.setattr(GumbelNoise, "__call__", lambda self, positions, *rest: plain(self, 0 * positions, *rest))
    must_fail(kit.Ours(), "distribution", "seed identity")


@pytest.mark.parametrize("verify", ["exact", "rejection"])
@pytest.mark.parametrize("target", [OneOffTarget, StaleTarget])
def test_a_wrong_target_is_caught(target, verify):
    decoder = kit.Ours(verify=verify, make_target=lambda job: target(job.law, 1, job.draft_law))
    must_fail(decoder, "greedy", "distribution", "seed identity")


def counted_by(monkeypatch, num_units):
    """Emit as many units as ``num_units(same)`` says; ``same`` (B, R - 1, unit) is where symbols are the draft's."""
    plain = emission._emit

    def emit(block, unit, draft, *rest):
        found, after = plain(block, unit, draft, *rest)
        width = draft.symbols.shape[1]
        same = (found.symbols[:, :width] == draft.symbols).unflatten(1, (width // unit, unit))
        return found._replace(counts=num_units(same) * unit), after

    monkeypatch.setattr(emission, "_emit", emit)


def leading(held):
    return 1 + held.long().cumprod(1).sum(1)


UNITS_HELD = {
    "by the last symbol alone": lambda same: leading(same[..., -1]),
    "by the first symbol alone": lambda same: leading(same[..., 0]),
    "by most of their symbols": lambda same: leading(same.long().sum(-1) > 1),
    "in whatever order": lambda same: 1 + same.all(-1).long().sum(1),
}


@pytest.mark.parametrize("wrong", UNITS_HELD.values(), ids=UNITS_HELD)
def test_a_unit_that_does_not_stand_is_caught(monkeypatch, wrong):
    """A unit holds if all its symbols do and all units before it. Here it holds by less."""
    counted_by(monkeypatch, wrong)
    must_fail(kit.Ours(draft_with="heads", unit=4), "greedy", "seed identity")


def test_units_counted_right_pass(monkeypatch):
    """Positive control of the test above."""
    counted_by(monkeypatch, lambda same: leading(same.all(-1)))
    assert kit.check_greedy(kit.Ours(draft_with="heads", unit=4)).outcome == "passed"


def coupled_acceptance(p, q):
    """Chance that argmax(log p + g) = argmax(log q + g): sum over x of 1 / sum over y of max(p_y / p_x, q_y / q_x).

    With e_y = exp(-g_y), independent and exponential, x is both where e_x <= e_y min(p_x / p_y, q_x / q_y) for all y.
    """
    p, q = np.asarray(p), np.asarray(q)
    return sum(1 / np.maximum(p / p[x], q / q[x]).sum() for x in range(len(p)))


@pytest.mark.parametrize("distance", [0.3, 1.0, 3.0])
def test_acceptance_is_what_the_coupling_promises(distance):
    """The first draft of 20,000 rows, to within five deviations of its exact chance, which keeps the bound."""
    rows, prompt, law = 20_000, (2, 1), LAW
    draft_law = law.near(4, distance)
    exact = 0.0
    for symbol, share in enumerate(law.probabilities(prompt)):
        p, q = (one.probabilities((*prompt, symbol)) for one in (law, draft_law))
        tv = np.abs(np.subtract(p, q)).sum() / 2
        chance = coupled_acceptance(p, q)
        assert (1 - tv) / (1 + tv) <= chance <= 1 - tv, "Daliri, Musco and Suresh (arXiv 2408.07978), theorem 1"
        exact += share * chance
    stats = decode(
        kit.ToyTarget(law, 1, draft_law),
        [np.array(prompt, dtype=np.uint8)] * rows,
        sampling=Sampling(do_sample=True),
        max_new=2,
        drafter=HeadsDrafter(1),
        seed=5,
    ).stats
    assert stats.judged_at == (rows,)
    assert abs(stats.accepted / rows - exact) < 5 * np.sqrt(exact * (1 - exact) / rows)


def test_the_formula_of_the_coupling():
    """Against its definition on laws of two symbols: by one uniform number, where p and q cut it."""
    for a, b in itertools.product((0.1, 0.35, 0.6, 0.9), repeat=2):
        # Of two symbols the first wins where g_0 - g_1, a logistic number, is above log(p_1 / p_0).
        assert coupled_acceptance((a, 1 - a), (b, 1 - b)) == pytest.approx(1 - abs(a - b))

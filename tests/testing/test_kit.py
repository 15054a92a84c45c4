"""The kit passes decoders that are right and fails every seeded bug, by the checks that are said to catch it."""

import dataclasses
import re

import numpy as np
import pytest

import bytelm.testing as kit
from bytelm.testing.bugs import BUGS, DraftTemperature, Lenient
from bytelm.testing.reference import warp_reference
from bytelm.testing.significance import chi_square_p, total_variation
from bytelm.testing.toy import UNWRITTEN, ToyLaw, context_of

NO_SEEDS = {"seeds": "numbers are drawn in order of use"}


def algebra(decoder):
    """The rule of a rejection sampler by itself."""
    return kit.check_algebra(
        lambda p, q: np.array([decoder.acceptance(*pair) for pair in zip(p, q, strict=True)]),
        lambda p, q: np.array(decoder.residual(p.tolist(), q.tolist())),
    )


def lacks(decoder_class):
    return {} if issubclass(decoder_class, kit.Coupled) else NO_SEEDS


def run(name, decoder):
    checks = {
        "greedy": kit.check_greedy,
        "distribution": kit.check_distribution,
        "seed identity": kit.check_seed_identity,
        "stops": kit.check_stops,
        "nats": kit.check_nats,
        "forwards": kit.check_forwards,
    }
    report = algebra(decoder) if name == "algebra" else checks[name](decoder, lacks(type(decoder)))
    assert report.check == name
    return report


@pytest.mark.parametrize("decoder_class", [kit.Speculative, kit.Coupled])
def test_decoders_without_a_bug_pass(decoder_class):
    reports = [algebra(decoder_class()), *kit.run_kit(decoder_class(), lacks=lacks(decoder_class))]
    assert [r.check for r in reports if r.failed] == []
    assert [r.check for r in reports if r.outcome == "skipped"] == ["seed identity"] * bool(lacks(decoder_class))
    figures = {r.check: r.figures for r in reports}
    assert figures["distribution"]["p"] > 1e-4
    assert figures["distribution"]["tv"] < 1.2 * figures["distribution"]["tv_by_chance"]


@pytest.mark.parametrize(
    ("bug", "check"), [(bug, check) for bug in BUGS for check in bug.checks], ids=lambda x: getattr(x, "decoder", x)
)
def test_every_bug_is_caught(bug, check):
    report = run(check, bug.decoder())
    assert report.failed
    assert report.message


def test_the_table_of_bugs_is_the_one_in_the_documentation():
    rows = re.findall(r"^([A-Z]\w+) {2,}.*?\S {2,}(\S.*)$", kit.__doc__, re.MULTILINE)
    more = re.findall(r"^([A-Z]\w+) .*\n +(seed identity)$", kit.__doc__, re.MULTILINE)
    told = {name: checks.rstrip(",").split(", ") for name, checks in rows}
    for name, check in more:
        told[name].append(check)
    assert told == {bug.decoder.__name__: list(bug.checks) for bug in BUGS}
    assert len(BUGS) >= 10


@pytest.mark.slow
def test_at_full_power_right_decoders_pass_and_subtle_bugs_do_not():
    reports = kit.run_kit(kit.Speculative(), lacks=NO_SEEDS, level="full")
    assert [r.check for r in reports if r.failed] == []
    for bug, factor in ((Lenient, 1.05), (DraftTemperature, 1.1)):
        subtle = type("Subtle", (bug,), {"factor": factor})()
        assert not kit.check_distribution(subtle, level="quick").failed, "too subtle for the quick level"
        assert kit.check_distribution(subtle, level="full").failed


def test_what_a_decoder_lacks_is_left_out_with_the_reason():
    decoder = kit.Coupled()

    def alone(job):
        assert len(job.prompts) == 1
        assert job.temperature == 0
        assert job.draft_law is None
        assert not job.stops
        return [dataclasses.replace(a, nats=None, pieces=None, forwards=None) for a in decoder(job)]

    names = ("sampling", "batch", "model", "stops")
    reports = kit.run_kit(alone, lacks={name: f"no {name} here" for name in names})
    outcomes = {r.check: r.outcome for r in reports}
    assert outcomes == {
        "greedy": "passed",
        "seed identity": "skipped",
        "distribution": "skipped",
        "stops": "passed",
        "nats": "skipped",
        "forwards": "skipped",
    }
    by_name = {r.check: r for r in reports}
    assert set(by_name["greedy"].left_out) == {"batch: no batch here", "model: no model here"}
    assert by_name["distribution"].message == "sampling: no sampling here"
    assert by_name["nats"].message == "the decoder tells no nats"
    assert "pieces: the decoder does not stream" in by_name["stops"].left_out
    table = kit.format_reports(reports)
    assert "distribution   skipped" in table
    assert "left out model: no model here" in table


def test_a_decoder_that_raises_fails():
    def broken(job):
        return [1 / 0]

    reports = kit.run_kit(broken)
    assert all(r.outcome == "failed" and "ZeroDivisionError" in r.message for r in reports)


def test_too_few_answers_fail():
    assert "6 answers" in kit.check_greedy(lambda job: kit.Coupled()(job)[: 6 if len(job.prompts) > 1 else 1]).message


def test_a_slow_decoder_may_be_asked_for_fewer_rows():
    report = next(r for r in kit.run_kit(kit.Speculative(), rows=2000) if r.check == "distribution")
    assert (report.outcome, report.figures["rows"]) == ("passed", 2000)
    assert kit.check_distribution(kit.Coupled(), rows=200).message == "AssertionError: too few counts for a test"


def test_proposals_follow_their_plan():
    answers = [[1, 2, 0, 1], [2, 2]]
    assert kit.proposals("1", answers, 3, ahead=1) == ((1, 2, 0, 1, 0), (2, 2, 0))
    wrong = kit.proposals("0", answers, 3, ahead=0)
    assert all(a != b for row, told in zip(answers, wrong, strict=True) for a, b in zip(row, told, strict=True))
    assert kit.proposals("110", answers, 3, ahead=0) == ((1, 2, 1, 1), (2, 2))
    assert {s for row in kit.proposals("random", [[]] * 5, 3) for s in row} == {0, 1, 2}


def test_toy_law_and_its_views_agree():
    import torch

    law = ToyLaw.random(5, seed=1)
    for history in ([], [3], [1, 2], [4, 4, 0, 3]):
        assert context_of(history) == tuple([0, 0, *history][-2:])
        found = law.batch(torch.tensor([[[0, 0, *history]]]))
        np.testing.assert_array_equal(found[0, 0].numpy(), law.logits(history))
        np.testing.assert_allclose(law.probabilities(history), np.exp(warp_reference(law.logits(history))))
        assert law.probabilities(history, 0.0)[int(law.logits(history).argmax())] == 1
        assert np.count_nonzero(law.probabilities(history, 1.0, 2)) == 2
    assert law.batch(torch.tensor([[1, UNWRITTEN], [UNWRITTEN, 1]])).isnan().all()
    joint = ToyLaw.random(3, seed=3).joint((1, 0), 3)
    assert joint.shape == (27,)
    assert joint.sum() == pytest.approx(1)
    first = ToyLaw.random(3, seed=3).probabilities((1, 0))
    np.testing.assert_allclose(joint.reshape(3, 9).sum(1), first)


def test_chi_square_sees_what_is_off_and_no_more():
    rng, shares = np.random.default_rng(0), np.array([0.5, 0.3, 0.15, 0.05])
    p_values = [chi_square_p(rng.multinomial(2000, shares), shares) for _ in range(400)]
    assert 0.4 < np.mean(p_values) < 0.6
    assert chi_square_p(rng.multinomial(20_000, [0.47, 0.33, 0.15, 0.05]), shares) < 1e-9
    assert chi_square_p([5, 5, 0], [0.5, 0.5, 0.0]) > 0.9
    with pytest.raises(AssertionError, match="too few counts"):
        chi_square_p([1, 2], [0.5, 0.5])
    assert chi_square_p([5, 5, 1], [0.5, 0.5, 0.0]) == 0
    distances = [total_variation(rng.multinomial(2000, shares), shares) for _ in range(400)]
    assert np.mean([d for d, _ in distances]) == pytest.approx(distances[0][1], rel=0.1)

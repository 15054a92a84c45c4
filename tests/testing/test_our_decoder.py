"""Our decoder under the kit: toy laws in units of one and four symbols, every rule and drafter."""

import numpy as np
import pytest

import bytelm.testing as kit
from bytelm.decoding import HeadsDrafter, decode
from bytelm.errors import DecodingError


def failures(reports):
    return [(r.check, r.message) for r in reports if r.failed]


def test_the_rule_of_rejection_is_exact():
    report = kit.check_our_algebra()
    assert not report.failed, report.message
    assert report.figures["cases"] > 500


@pytest.mark.parametrize("decoder", [kit.Ours(), kit.Ours(draft_with="heads", unit=4)], ids=str)
def test_our_decoder_passes_the_kit(decoder):
    assert failures(kit.run_kit(decoder, lacks=decoder.lacks)) == []


@pytest.mark.parametrize(
    ("draft_with", "unit"),
    [("heads", 1), ("lookup", 1), ("auto", 1), ("model", 4), ("lookup", 4), ("auto", 4)],
)
def test_every_drafter_gives_the_plain_result(draft_with, unit):
    decoder = kit.Ours(draft_with=draft_with, unit=unit)
    lacks = {"proposals": "the drafter itself is under test"}
    assert failures([kit.check_greedy(decoder, lacks), kit.check_seed_identity(decoder, lacks)]) == []


@pytest.mark.parametrize(("draft_with", "unit"), [("model", 1), ("heads", 4)])
def test_rejection_has_the_law(draft_with, unit):
    decoder = kit.Ours(draft_with=draft_with, unit=unit, verify="rejection")
    assert failures([kit.check_distribution(decoder)]) == []
    assert kit.check_seed_identity(decoder).failed
    assert kit.check_seed_identity(decoder, decoder.lacks).outcome == "skipped"


def test_typical_acceptance_does_not_have_the_law():
    decoder = kit.Ours(verify="typical")
    report = kit.check_distribution(decoder)
    assert report.failed
    assert report.figures["p"] < 1e-12
    assert report.figures["tv"] > 2 * report.figures["tv_by_chance"]


@pytest.mark.slow
@pytest.mark.parametrize(("draft_with", "unit"), [("model", 1), ("heads", 4), ("lookup", 1), ("auto", 4)])
def test_our_decoder_passes_the_kit_at_full_power(draft_with, unit):
    decoder = kit.Ours(draft_with=draft_with, unit=unit)
    if draft_with in ("model", "heads"):
        assert failures(kit.run_kit(decoder, level="full")) == []
    else:
        lacks = {"proposals": "see the other drafters"}
        assert (
            failures([kit.check_seed_identity(decoder, lacks, "full"), kit.check_stops(decoder, lacks, "full")]) == []
        )


@pytest.mark.slow
@pytest.mark.parametrize(("draft_with", "unit"), [("heads", 1), ("model", 4)])
def test_rejection_has_the_law_at_full_power(draft_with, unit):
    decoder = kit.Ours(draft_with=draft_with, unit=unit, verify="rejection")
    assert failures([kit.check_distribution(decoder, level="full")]) == []


def test_scripted_drafters_make_what_they_promise():
    law = kit.ToyLaw.random(17, seed=1)
    prompts = [np.array(p, dtype=np.uint8) for p in ([1, 2], [3], [4, 5, 6])]
    plain = decode(kit.ToyTarget(law), prompts, max_new=31)
    answers = [row.tolist() for row in plain.symbols]
    oracle = decode(kit.ToyTarget(law), prompts, max_new=31, drafter=kit.OracleDrafter(answers, 4, 17))
    wrong = decode(kit.ToyTarget(law), prompts, max_new=31, drafter=kit.WrongDrafter(answers, 4, 17))
    script = decode(kit.ToyTarget(law), prompts, max_new=31, drafter=kit.ScriptedDrafter(answers, 4, 17, "110"))
    random = decode(kit.ToyTarget(law), prompts, max_new=31, drafter=kit.RandomDrafter(3, 31, 4, 17))
    for generation in (oracle, wrong, script, random):
        assert [row.tolist() for row in generation.symbols] == answers
    assert oracle.stats.forwards == 7
    assert set(oracle.stats.acceptance_at) == {1.0}
    assert wrong.stats.forwards == 31
    assert wrong.stats.accepted == 0
    # Symbols 2, 5, 8, … are proposed wrongly, and then emitted by the target itself.
    assert script.stats.forwards == 1 + 1 + 10
    assert isinstance(script.trace[0].source[1], str)
    assert script.trace[0].source[:6].tolist() == ["law", "scripted", "law", "scripted", "scripted", "law"]


def test_heads_must_reach():
    with pytest.raises(DecodingError, match="draft 'heads': found 2 symbols, expected at most 0"):
        decode(kit.ToyTarget(kit.ToyLaw.random(5, 0)), [np.array([1], np.uint8)], max_new=3, drafter=HeadsDrafter(2))

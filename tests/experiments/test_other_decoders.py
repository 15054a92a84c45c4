"""Faults of other decoders are found by the checks named, and decoders that are right pass beside them."""

import dataclasses
import json

import numpy as np
import pytest

import bytelm.testing as kit
from bytelm.decoding import Sampling
from bytelm.testing.checks import make_job
from bytelm.testing.reference import decode_reference

other_decoders = pytest.importorskip("other_decoders", reason="experiments are not beside the tests")
ENTRIES = {entry.name: entry for entry in other_decoders.entries(rows=1000)}

FAULTS = {
    "ours, exact": set(),
    "ours, rejection": set(),
    "Medusa, redraw": {"distribution"},
    "Medusa, typical": {"distribution"},
    "EvaByte": {"greedy", "distribution", "stops"},
    "EvaByte, cropped": {"distribution", "stops"},
    "litgpt": {"greedy", "distribution", "stops", "nats", "forwards"},
    "litgpt, first symbol restored": {"greedy", "stops", "forwards"},
}


@pytest.fixture
def adapters():
    """The adapters of transformers, without its advice."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    import transformers_decoder

    return transformers_decoder


def failed(reports):
    return {report.check for report in reports if report.failed}


@pytest.mark.parametrize("name", [name for name in FAULTS if not name.startswith("ours")])
def test_the_kit_finds_the_faults_and_nothing_else(name):
    entry = ENTRIES[name]
    reports = kit.run_kit(entry.decoder, lacks=entry.lacks, rows=1000)
    assert failed(reports) == FAULTS[name]
    assert [report.check for report in reports if report.outcome == "skipped"] == ["seed identity"]


@pytest.mark.parametrize("name", ["ours, exact", "ours, rejection"])
def test_controls_pass_where_others_fail(name):
    """All checks of them are run in tests/testing."""
    decoder, lacks = ENTRIES[name].decoder, ENTRIES[name].lacks
    assert failed([kit.check_distribution(decoder, lacks, rows=1000), kit.check_forwards(decoder, lacks)]) == set()
    law = kit.ToyLaw.random(31, seed=8)
    plain = make_job(law, 1, 12)
    symbols = decoder(plain)[0].symbols
    told = kit.proposals("1", [symbols], law.vocab)
    for end in range(10):
        job = dataclasses.replace(plain, stops=((symbols[end],),), num_draft=4, proposals=told)
        assert decoder(job)[0].symbols == symbols[: symbols.index(symbols[end]) + 1]


def test_every_decoder_has_its_faults_written_down():
    assert {name for name in ENTRIES if not name.startswith("transformers")} == set(FAULTS)


def test_redrawing_gives_the_draft_a_second_chance():
    p, rows = np.array(other_decoders.LAW), 4000
    one_path = p * (1 - p[0])
    one_path[0] = 1 - (1 - p[0]) ** 2
    forgotten = (1 - p[0]) * (1 - p[1])
    two_paths = forgotten * p
    two_paths[:2] += p[0], (1 - p[0]) * p[1]
    expected = [p, one_path, one_path, np.eye(4)[0], two_paths]
    assert sum(two_paths) == pytest.approx(1)
    for number, shares in zip(other_decoders.numbers_of_acceptance(rows), expected, strict=True):
        found = np.array([float(share) for share in number.found.split()])
        assert np.abs(found - shares).max() <= 5 * 0.5 / rows**0.5 + 5e-4, number
    assert one_path[0] == pytest.approx(0.64)


def test_litgpt_loses_a_symbol_and_keeps_wrong_ones():
    ratio, lost = other_decoders.numbers_of_litgpt()
    assert (ratio.right, set(ratio.found[2::4])) == ("1 1 1 1 1 1", {"0"})
    assert lost.found == lost.right[2:]


def test_greedy_output_of_transformers_is_right(adapters):
    law = kit.ToyLaw.random(17, seed=1)
    plain = make_job(law, 3, 23)
    expected = [decode_reference(law, prompt, Sampling(), 23).symbols for prompt in plain.prompts]
    assistant, lookup = adapters.Transformers(), adapters.Transformers("lookup")
    jobs = [(assistant, plain), (lookup, dataclasses.replace(plain, num_draft=4))]
    jobs.append((assistant, dataclasses.replace(plain, num_draft=3, draft_law=law.near(5))))
    for plan in ("0", "01110"):
        told = kit.proposals(plan, expected, law.vocab)
        jobs.append((assistant, dataclasses.replace(plain, num_draft=4, proposals=told)))
        jobs.append((adapters.Transformers(model=adapters.KeywordsModel), jobs[-1][1]))
    for decoder, job in jobs:
        assert [list(decoder(job.alone(row))[0].symbols) for row in range(3)] == expected


def test_transformers_looks_for_stops_where_steps_end(adapters):
    decoder = adapters.Transformers()
    report = kit.check_stops(decoder, decoder.lacks)
    assert report.failed
    assert "drafted by plan 1: row 0 differs" in report.message


def test_transformers_refuses_stop_strings_of_its_assistant(adapters):
    decoder = adapters.Transformers(stop_with="strings")
    job = dataclasses.replace(make_job(kit.ToyLaw.random(31, seed=8), 1, 8), stops=((1, 2),))
    assert len(decoder(job)[0].symbols) == 8
    with pytest.raises(ValueError, match="pass the model's tokenizer"):
        decoder(dataclasses.replace(job, num_draft=2, draft_law=job.law))


def test_transformers_ends_at_eos_inside_a_step(adapters):
    law = kit.ToyLaw.random(31, seed=8)
    plain = make_job(law, 1, 12)
    symbols = decode_reference(law, plain.prompts[0], Sampling(), 12).symbols
    told = kit.proposals("1", [symbols], law.vocab)
    for end in range(10):
        job = dataclasses.replace(plain, stops=((symbols[end],),), num_draft=4, proposals=told)
        answer = adapters.Transformers(stop_with="eos")(job)[0]
        assert answer.symbols == tuple(symbols[: symbols.index(symbols[end]) + 1])
        assert sum(answer.pieces, ()) == answer.symbols


def test_seeds_of_transformers_depend_on_the_drafts(adapters):
    for decoder in (adapters.Transformers(), adapters.Transformers("lookup")):
        lacks = {name: reason for name, reason in decoder.lacks.items() if name != "seeds"}
        assert kit.check_seed_identity(decoder, lacks).failed


def test_nats_and_forwards_of_transformers(adapters):
    decoder, hidden = adapters.Transformers(), adapters.Transformers(model=adapters.KeywordsModel)
    assert failed([kit.check_nats(decoder, decoder.lacks), kit.check_forwards(decoder, decoder.lacks)]) == set()
    assert failed([kit.check_forwards(hidden, hidden.lacks)]) == {"forwards"}


def test_numbers_of_transformers(adapters):
    numbers = {number.name.split(", ", 1)[1]: number for number in other_decoders.numbers_of_transformers()}
    found = {name: (number.found, number.right) for name, number in numbers.items()}
    for stop_with in ("criterion", "strings"):
        assert found[f"look-up: symbols up to a stop of three, {stop_with}"] == ("60", "3 without a draft")
    assert found["look-up: symbols up to an eos_token_id"] == ("3", "3 without a draft")
    assert found["drafts all right: forwards for 31, forward(attention_mask)"] == ("7", "7")
    assert int(found["drafts all right: forwards for 31, forward(**given)"][0]) > 14
    assert "only supported for batch_size = 1" in found["assistant: two rows"][0]


@pytest.mark.slow
@pytest.mark.parametrize("draft_with", ["assistant", "lookup"])
def test_transformers_has_the_law(adapters, draft_with):
    decoder = adapters.Transformers(draft_with)
    report = kit.check_distribution(decoder, decoder.lacks, rows=2000)
    assert not report.failed, report.message


def test_the_script_prints_its_tables(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["other_decoders.py", "--only", "Medusa, typical"])
    other_decoders.main()
    printed = capsys.readouterr().out
    assert "| Medusa, typical | passed | skipped | **failed** |" in printed
    reports = json.loads(printed.splitlines()[-1])["reports"]["Medusa, typical"]
    assert [report["check"] for report in reports] == list(other_decoders.CHECKS)

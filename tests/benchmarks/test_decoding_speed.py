"""The benchmark measures what it says: all ways of a model, the same text for all drafters, ratios against plain."""

import dataclasses
import math

import pytest
from support import tiny_model, trained_lm

from bytelm.benchmarks import decoding, decoding_ways, measure_decoding
from bytelm.benchmarks.decoding import PLAIN, DecodingRun, Way, summarise
from bytelm.encoding import get_encoding
from bytelm.errors import DecodingError, LawError
from bytelm.hub import LanguageModel
from bytelm.tokenizer import Tokenizer

RUN = DecodingRun(
    chars=30,
    utf8_bytes=90,
    symbols=40,
    forwards=10,
    row_forwards=20,
    bytes_read=1e6,
    seconds=2.0,
    judged_at=(8, 4),
    accepted_at=(4, 3),
)


@pytest.fixture(params=["chained", "independent"], scope="module")
def lm(request):
    return LanguageModel(tiny_model(request.param), Tokenizer(get_encoding("dense-ja")))


def test_ways_are_every_law_with_every_drafter_it_has(lm):
    law = lm.law
    assert decoding_ways(lm) == [
        *(("next", draft) for draft in ("none", "heads", "lookup", "auto")),
        *((law, draft) for draft in ("none", "lookup", "auto")),
    ]
    assert decoding_ways(lm, [law], ["heads", "lookup"]) == [PLAIN, (law, "lookup")]
    with pytest.raises(LawError, match="expected one of"):
        decoding_ways(lm, ["last"])
    with pytest.raises(DecodingError, match="found 'tails', expected some of none, heads"):
        decoding_ways(lm, None, ["none", "tails"])


@pytest.mark.parametrize(("batch", "temperature", "num_rows"), [(1, 0.0, 2), (3, 0.7, 3)])
def test_every_way_is_measured_on_the_same_rows(batch, temperature, num_rows, monkeypatch):
    lm = LanguageModel(tiny_model("independent", num_blocks=1), Tokenizer(get_encoding("dense-ja")))
    calls = []

    def generate(prompts, **options):
        calls.append((options["law"], options["draft"], options["seed"], options["max_new_tokens"], list(prompts)))
        return LanguageModel.generate(lm, prompts, **options)

    monkeypatch.setattr(lm, "generate", generate)
    ways = decoding_ways(lm)
    speeds = measure_decoding(
        lm, ["山", "川の"], batch=batch, temperature=temperature, max_new_tokens=9, repeats=2, seed=5
    )
    assert [(s.law, s.draft, s.batch, s.temperature) for s in speeds] == [(*way, batch, temperature) for way in ways]
    rows = [(["山", "川の", "山"][i : i + batch], list(range(5 + i, 5 + i + batch))) for i in range(0, num_rows, batch)]

    def turn(num_new):
        return [(*way, seeds, num_new, texts) for way in ways for texts, seeds in rows]

    assert calls == turn(8) + 2 * turn(9)
    for speed in speeds:
        assert speed.symbols_per_second > 0
        assert speed.bytes_read_per_second > 0
        assert all(0 <= share <= 1 for share in speed.acceptance_at)
    assert speeds[0].ratio == 1.0


def test_characters_and_forwards_are_those_of_the_output():
    lm = trained_lm("chained", steps=20)
    plain, drafted, patch = measure_decoding(
        lm, ["山", "川の"], ways=decoding_ways(lm, drafts=["none", "heads"]), max_new_tokens=12, repeats=1
    )
    out = lm.generate(["山", "川の"], max_new_tokens=12, law="chain", draft="none")
    assert patch.chars_per_forward == pytest.approx(out.num_chars / (2 * 3))
    assert patch.chars_per_forward * patch.forwards_per_char == pytest.approx(1)
    assert patch.utf8_bytes_per_second / patch.chars_per_second == pytest.approx(out.num_utf8_bytes / out.num_chars)
    assert plain.chars_per_forward <= 1
    assert 1 <= len(drafted.acceptance_at) <= 3
    assert plain.acceptance_at == patch.acceptance_at == ()
    assert drafted.chars_per_forward >= plain.chars_per_forward


def test_figures_are_medians_and_ratios_those_of_pairs():
    def at(*seconds):
        return [dataclasses.replace(RUN, seconds=s) for s in seconds]

    # Plain slows down with the machine; the pairs say 4, 2, 2.5, the medians would say 3.
    speed = summarise(Way("next", "heads"), 2, 0.7, at(1.0, 3.0, 2.0), at(4.0, 6.0, 5.0))
    assert speed.ratio == 2.5
    assert (speed.chars_per_second, speed.utf8_bytes_per_second, speed.symbols_per_second) == (15, 45, 20)
    assert (speed.chars_per_forward, speed.forwards_per_char) == (1.5, pytest.approx(2 / 3))
    assert (speed.seconds_per_forward, speed.bytes_read_per_second) == (0.2, 5e5)
    assert speed.acceptance_at == (0.5, 0.75)
    assert (speed.law, speed.draft, speed.batch, speed.temperature) == ("next", "heads", 2, 0.7)


def test_acceptance_is_of_all_repeats_where_any_draft_was_judged():
    other = dataclasses.replace(RUN, judged_at=(2, 0, 5, 0), accepted_at=(0, 0, 5, 0))
    assert summarise(PLAIN, 1, 0.0, [RUN, other], [RUN, RUN]).acceptance_at == (0.4, 0.75, 1.0)


def test_no_character_is_no_error():
    nothing = dataclasses.replace(RUN, chars=0, utf8_bytes=0)
    speed = summarise(PLAIN, 1, 0.0, [nothing], [nothing])
    assert math.isnan(speed.ratio)
    assert (speed.chars_per_second, speed.forwards_per_char) == (0, math.inf)


def test_bytes_read_are_matrices_once_a_forward_and_keys_and_values_once_a_stream(lm, monkeypatch):
    monkeypatch.setattr(decoding, "weight_bytes", lambda *_: 10_000_000)
    monkeypatch.setattr(decoding, "slot_bytes", lambda *_: 1)
    out = lm.generate(["山川", "山"], max_new_tokens=8, law="next", draft="none", eos_token_id=())
    run = decoding._sum_up(lm, PLAIN, [(out, 1.0, ["山川", "山"])])
    lengths = [len(lm.tokenizer.encode(prompt)) + 4 for prompt in ("山川", "山")]
    assert run.bytes_read == 8 * 10_000_000 + sum(8 * (1 + length / 4) for length in lengths)
    drafted = lm.generate(["山川"], max_new_tokens=8, law="next", draft="heads", eos_token_id=())
    # Prefill, then forwards of four states: each in a stream of its own, of which there are four.
    streams = drafted.stats.states / (drafted.stats.forwards - 1)
    expected = streams * drafted.stats.forwards * (1 + lengths[0] / 4)
    assert 3 < streams <= 4
    assert decoding._cache_bytes(lm, drafted, ["山川"]) == pytest.approx(expected)

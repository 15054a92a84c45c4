"""Speeds of several models: the same prompts and numbers of characters for all, in turn, and figures of the outputs."""

import pytest
from support import trained_model

from bytelm.benchmarks.generation_speed import check_generation, measure_generation, num_runs
from bytelm.encoding import get_encoding
from bytelm.errors import DecodingError
from bytelm.hub import LanguageModel
from bytelm.tokenizer import Tokenizer
from tests.hub.forced_model import cyclic_model

PROMPTS = ["山のふもと", "祖母の"]
DRAFTS = ["none", "heads"]


@pytest.fixture(scope="module")
def models():
    chained, independent = (trained_model(kind, steps=20) for kind in ("chained", "independent"))
    return {
        "a": (LanguageModel(chained[0], Tokenizer(chained[1])), ("chain", "next")),
        "b": (LanguageModel(independent[0], Tokenizer(independent[1])), ("product",)),
    }


WAYS = [("a", "chain", "none"), ("a", "next", "none"), ("a", "next", "heads"), ("b", "product", "none")]


def test_all_ways_take_turns_on_the_same_work(models, monkeypatch):
    calls, done = [], []
    for name, (lm, _) in models.items():

        def generate(prompts, *, lm=lm, name=name, **options):
            calls.append((name, options["law"], options["draft"], options["max_new_chars"], *prompts))
            return LanguageModel.generate(lm, prompts, **options)

        monkeypatch.setattr(lm, "generate", generate)
    found = measure_generation(
        models, PROMPTS, drafts=DRAFTS, max_new_chars=9, repeats=2, on_progress=lambda: done.append(1)
    )
    assert [(speed.model, speed.law, speed.draft) for speed in found] == WAYS
    turn = [(*way, 9, prompt) for way in WAYS for prompt in PROMPTS]
    assert calls == [(*way, 8, PROMPTS[0]) for way in WAYS] + turn + turn
    assert len(done) == num_runs(models, DRAFTS, 2) == 3 * len(WAYS)


def test_figures_are_those_of_the_texts(models):
    found = measure_generation(models, PROMPTS, drafts=DRAFTS, max_new_chars=9, repeats=1)
    for speed in found:
        lm = models[speed.model][0]
        options = {"law": speed.law, "draft": speed.draft, "max_new_chars": 9, "eos_token_id": ()}
        outs = [lm.generate([prompt], max_new_tokens=36, **options) for prompt in PROMPTS]
        assert all(len(text) == 9 for out in outs for text in out.texts), "no text ended before"
        assert speed.characters == sum(out.num_chars for out in outs)
        assert speed.chars_per_forward == speed.characters / sum(out.stats.forwards for out in outs)
    of = {(speed.model, speed.law, speed.draft): speed for speed in found}
    assert of["a", "chain", "none"].chars_per_forward > of["a", "next", "none"].chars_per_forward
    assert of["a", "next", "heads"].chars_per_forward > of["a", "next", "none"].chars_per_forward
    assert of["a", "next", "heads"].characters == of["a", "next", "none"].characters


def test_seconds_are_the_median_of_the_repeats(models, monkeypatch):
    lm = models["b"][0]
    taken = iter([1.0, 5.0, 2.0, 3.0])  # the warm-up, then three repeats
    now = [0.0]

    def generate(prompts, **options):
        now[0] += next(taken)
        return LanguageModel.generate(lm, prompts, **options)

    monkeypatch.setattr(lm, "generate", generate)
    monkeypatch.setattr("bytelm.benchmarks.generation_speed.time", type("Clock", (), {"perf_counter": lambda: now[0]}))
    (speed,) = measure_generation({"b": (lm, ["next"])}, PROMPTS[:1], drafts=["none"], max_new_chars=6, repeats=3)
    assert speed.chars_per_second == speed.characters / 3.0


def test_what_a_context_may_not_hold_is_refused(models):
    lm = models["a"][0]
    assert lm.config.context == 256
    symbols = len(get_encoding("dense-ja").encode(PROMPTS[0]))
    most = (256 - 4 - symbols) // 4
    check_generation("a", lm, PROMPTS, most)
    lm.generate(PROMPTS[:1], max_new_tokens=4 * most)
    total = symbols + 4 + 4 * (most + 1)
    with pytest.raises(DecodingError, match=f"model a: {symbols} symbols of a prompt.* make {total} with BOS.* of 256"):
        measure_generation(models, PROMPTS, max_new_chars=most + 1)
    with pytest.raises(DecodingError, match="found 'tails'"):
        measure_generation(models, PROMPTS, drafts=["none", "tails"])


def test_no_text_ends_before_its_characters():
    encoding = get_encoding("dense-ja")
    cycle = [*encoding.encode("a").tolist(), *encoding.controls["<|eos|>"]]
    lm = LanguageModel(cyclic_model("chained", cycle, encoding.encode("b").tolist()), Tokenizer(encoding))
    assert lm.generate(["b"]).texts == ["a"], "it does end where it may"
    found = measure_generation({"a": (lm, lm.laws)}, ["b"], drafts=["none"], max_new_chars=6, repeats=1)
    assert [speed.characters for speed in found] == [6, 6]

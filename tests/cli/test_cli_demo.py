"""The demo at a few steps and bytes: everything it promises is written and printed."""

import contextlib
import io
import json
import math
from pathlib import Path

import pytest

import bytelm
from bytelm.cli import main
from bytelm.corpus import DEFAULT_PROMPTS, Corpus
from bytelm.hub.shipped import DEFAULT_MODEL, shipped_folder


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(folder, standard output) of a demo of four steps that measures decoding on few bytes."""
    out = tmp_path_factory.mktemp("demo") / "out"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
        patch.setattr("bytelm.cli.demo.MEASURED_BYTES", 12)
        patch.setattr("bytelm.cli.demo.SAMPLED_BYTES", 40)
        assert main(["demo", "--out", str(out), "--steps", "4"]) == 0
    return out, printed.getvalue()


@pytest.fixture(scope="module")
def report(demo):
    return json.loads((demo[0] / "report.json").read_text(encoding="utf-8"))


def test_every_law_and_rival_is_scored_on_the_same_text(report):
    names = {"before training, chain", "unigram", "trigram", "after training, chain", "after training, next"}
    if shipped_folder(DEFAULT_MODEL):
        names.add(f"{DEFAULT_MODEL}, chain")
    assert set(report["bits_per_char"]) == names
    assert all(1 < bits < 12 and math.isfinite(bits) for bits in report["bits_per_char"].values())
    assert report["bits_per_char"]["trigram"] < report["bits_per_char"]["unigram"]


def test_training_lowers_the_figure_that_is_printed_and_the_verdict_follows_it(demo, report):
    bits = report["bits_per_char"]
    assert bits["after training, chain"] < bits["before training, chain"]
    best = min(bits["after training, chain"], bits["after training, next"])
    assert report["beats_trigram"] == (best < bits["trigram"])
    assert ("NOT better than the trigram" in demo[1]) == (not report["beats_trigram"])
    for value in bits.values():
        assert f"{value:.3f}" in demo[1]


def test_the_model_it_leaves_gives_the_figures_it_reports(demo, report):
    lm = bytelm.load(demo[0] / "model")
    texts = [json.loads(line)["text"] for line in (demo[0] / "held_out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(texts) == report["held_out_documents"]
    assert lm.score(texts).total.bits_per_char == pytest.approx(report["bits_per_char"]["after training, chain"])


def test_pictures_corpora_and_prompts_are_there(demo, report):
    out, printed = demo
    assert [Path(p).name for p in report["pictures"]] == ["loss.png", "head_bits.png", "text.png"]
    assert all((out / Path(p).name).read_bytes().startswith(b"\x89PNG") for p in report["pictures"])
    assert Corpus.open(out / "corpus" / "train").manifest.documents > 500
    assert all(prompt in printed for prompt in DEFAULT_PROMPTS)
    assert ("written by bytelm-ja-tiny" in printed) == (shipped_folder(DEFAULT_MODEL) is not None)

"""transformers' Llama beside ours: the same body, the same number of forwards, counted; at toy size."""

import sys

import pytest
import torch
from support import tiny_model

from bytelm.benchmarks import decoding_rivals, measure_rivals
from bytelm.benchmarks.rival_models import build_llama
from bytelm.encoding import get_encoding
from bytelm.hub import LanguageModel
from bytelm.tokenizer import Tokenizer

OURS = ["bytelm chain", "bytelm next"]


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(tiny_model(), Tokenizer(get_encoding("dense-ja")))


def test_without_transformers_one_line_says_so(lm, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    rivals, skipped = measure_rivals(lm, "山")
    assert rivals == []
    assert [entry.name for entry in skipped] == ["transformers"]
    assert "import of transformers halted" in skipped[0].reason


@pytest.mark.parametrize("batch", [1, 2])
def test_rivals_run_as_many_forwards_as_ours(lm, batch):
    pytest.importorskip("transformers")
    state = torch.get_rng_state()
    rivals, skipped = measure_rivals(lm, "山の川", batch=batch, forwards=6, repeats=1)
    assert torch.equal(torch.get_rng_state(), state)
    found = {rival.name: rival for rival in rivals}
    names = [*OURS, "transformers", "transformers static"]
    assert list(found) == (names if batch > 1 else [*names, "transformers lookup"])
    assert [found[name].forwards for name in names] == [6] * 4
    for rival in rivals:
        assert rival.batch == batch
        assert rival.forwards <= 6
        assert set(rival.ratios) == {"chain", "next"}
        symbols = batch * (24 if rival.name == "bytelm chain" else 6)
        assert rival.symbols_per_second * rival.seconds_per_forward == pytest.approx(symbols / rival.forwards)
    assert found["bytelm chain"].ratios["chain"] == found["bytelm next"].ratios["next"] == 1.0
    assert [(entry.name, entry.reason) for entry in skipped] == (
        [("transformers lookup", "takes one row, found a batch of 2")] if batch > 1 else []
    )


def test_the_context_bounds_the_forwards(lm, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(decoding_rivals, "_theirs", lambda *_: [])
    prompt = "山の川" * 40
    rivals, _ = measure_rivals(lm, prompt, forwards=10_000, repeats=1)
    expected = (lm.config.context - 4 - len(lm.tokenizer.encode(prompt))) // 4
    assert {rival.name: rival.forwards for rival in rivals}["bytelm chain"] == expected


def test_the_llama_has_our_body(lm):
    transformers = pytest.importorskip("transformers")
    llama = build_llama(transformers, lm)
    blocks = sum(p.numel() for p in llama.model.layers.parameters()) + llama.model.norm.weight.numel()
    assert blocks == lm.config.num_body_parameters()
    assert llama.lm_head.weight.shape == (256, lm.config.width)
    assert next(llama.parameters()).dtype == torch.float32
    assert not llama.training


def test_an_option_that_fails_is_skipped(lm, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(
        decoding_rivals, "_theirs", lambda *_: [("transformers odd", {"cache_implementation": "no such cache"})]
    )
    rivals, skipped = measure_rivals(lm, "山", forwards=2, repeats=1)
    assert [rival.name for rival in rivals] == OURS
    assert skipped[0].name == "transformers odd"
    assert "fails here" in skipped[0].reason
    assert "\n" not in skipped[0].reason


def test_ratios_are_of_pairs():
    def runs(*seconds):
        return [decoding_rivals._Run(4, 8, s) for s in seconds]

    speed = decoding_rivals._summarise("x", 2, runs(4.0, 12.0, 6.0), {"chain": [1.0, 1.0, 0.5]})
    assert (speed.seconds_per_forward, speed.forwards, speed.ratios) == (1.5, 4, {"chain": 3.0})
    assert speed.symbols_per_second == pytest.approx(8 / 6)

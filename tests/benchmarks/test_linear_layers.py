"""A plain step beside its linear layers: arithmetic on fabricated times, and which layers are run."""

from types import SimpleNamespace

import pytest
import torch
from support import gptj_toy, tiny_model
from torch import nn

from bytelm.benchmarks import linear_layers, measure_linear, weight_bytes
from bytelm.encoding import get_encoding
from bytelm.hub import LanguageModel
from bytelm.model.presets import get_preset
from bytelm.tokenizer import Tokenizer


def bytes_model(kind="chained"):
    return LanguageModel(tiny_model(kind), Tokenizer(get_encoding("dense-ja")))


def fake_generate(seconds, prefill):
    """A ``generate`` that says it took so long; P symbols a forward."""

    def generate(prompts, *, max_new_tokens, draft, eos_token_id, compile):
        assert (prompts, draft, eos_token_id, compile) == (["山"], "none", (), False)
        parts = SimpleNamespace(prefill=prefill)
        return SimpleNamespace(stats=SimpleNamespace(seconds=seconds, parts=parts, forwards=max_new_tokens // 4))

    return generate


def test_shares_and_ratios_are_of_the_times(monkeypatch):
    lm = bytes_model()
    times = {"bytelm": 2.0, "torch": 5.0}
    monkeypatch.setattr(
        linear_layers,
        "_alone",
        lambda layers, inputs, call, device: (
            lambda: times["torch" if "torch" in call.__name__ else "bytelm"] * len(next(iter(inputs.values())))
        ),
    )
    monkeypatch.setattr(lm, "generate", fake_generate(seconds=1.0 + 5 * 2.5, prefill=1.0))
    [(step, linear)] = measure_linear([lm], "山", rows=(1, 3), steps=5, repeats=2)
    num_bytes = weight_bytes(lm.model, "chain")
    assert (step.seconds, step.symbols_per_second, step.linear_share) == (2.5, 4 / 2.5, 0.8)
    assert step.bytes_read_per_second == pytest.approx(num_bytes / 2.5)
    assert [(c.through, c.rows, c.seconds, c.ratio) for c in linear] == [
        ("bytelm", 1, 2.0, 1.0),
        ("bytelm", 3, 6.0, 3.0),
        ("torch", 1, 5.0, 2.5),
        ("torch", 3, 15.0, 7.5),
    ]
    assert [c.bytes_read_per_second for c in linear] == pytest.approx([num_bytes / c.seconds for c in linear])


def test_models_are_compared_in_pairs_of_one_turn(monkeypatch):
    """A machine that slows down after the first turn changes times, not ratios."""
    models, order = [bytes_model(), bytes_model()], []
    slow = {1: 1.0, 2: 1.0, 3: 1.0, 4: 9.0, 5: 9.0, 6: 9.0}

    def step(lm, prompt, steps, compile):
        def run():
            order.append(models.index(lm))
            return (3.0, 2.0)[order[-1]] * slow.get(order.count(order[-1]), 1.0)

        return run

    monkeypatch.setattr(linear_layers, "_step", step)
    (first, _), (second, _) = measure_linear(models, "山", rows=(1,), repeats=6)
    assert order == [0, 1] * 7
    assert (first.ratio, second.ratio) == (1.0, 1.5)
    assert first.seconds == 15.0


@pytest.mark.parametrize("kind", ["chained", "independent", "tokens"])
def test_every_layer_is_run_once_with_so_many_rows(kind, monkeypatch):
    lm = gptj_toy(torch.bfloat16) if kind == "tokens" else bytes_model(kind)
    seen = []
    monkeypatch.setattr(linear_layers, "_step", lambda *_: lambda: 1.0)
    monkeypatch.setattr(linear_layers, "seconds_per_call", lambda call, _: call() or 1.0)
    monkeypatch.setattr(linear_layers, "_as_called", lambda layer, x: seen.append((layer, x)))
    measure_linear([lm], "A", rows=(1, 2), repeats=1)
    layers = [module for module in lm.model.modules() if isinstance(module, nn.Linear)]
    assert [id(layer) for layer, _ in seen] == 2 * [*map(id, layers), *map(id, layers)]
    for number, (layer, x) in enumerate(seen):
        assert x.shape == (1 + number // len(layers) % 2, layer.in_features)
        assert x.dtype == layer.weight.dtype


def test_a_step_is_measured():
    [(step, linear)] = measure_linear([gptj_toy(torch.bfloat16)], "A", rows=(1, 2), steps=3, repeats=1)
    assert step.seconds > 0
    assert step.symbols_per_second == pytest.approx(1 / step.seconds)
    assert {(cost.through, cost.rows) for cost in linear} == {(t, r) for t in ("bytelm", "torch") for r in (1, 2)}


def test_the_large_preset_is_gptj():
    assert get_preset("gptj-6b").num_parameters() == 6_050_882_784

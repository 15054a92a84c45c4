"""Clock, roof and forwards: their arithmetic on fabricated times, and forwards that stand still."""

import math
import time

import numpy as np
import pytest
import torch
from support import LAWS, tiny_model
from torch import nn

from bytelm.benchmarks import forwards as forwards_module
from bytelm.benchmarks import measure_bandwidth, measure_forwards, timing, weight_bytes
from bytelm.benchmarks.bandwidth import slot_bytes
from bytelm.benchmarks.forwards import POSITIONS, _forward, _Kind, _start
from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError
from bytelm.hub import LanguageModel
from bytelm.tokenizer import Tokenizer

CPU = torch.device("cpu")


def language_model(kind="chained", tables=False):
    return LanguageModel(tiny_model(kind, tables), Tokenizer(get_encoding("dense-ja")))


def test_cases_take_turns():
    order = []
    found = timing.take_turns({name: lambda name=name: order.append(name) or len(order) for name in "abc"}, 2)
    assert order == list("abcabc")
    assert found == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}


def test_ratios_are_of_pairs():
    assert timing.median_ratio([2.0, 30.0, 9.0], [1.0, 10.0, 2.0]) == 3.0
    assert math.isnan(timing.median_ratio([1.0, 1.0], [1.0, 0.0]))


def test_short_calls_are_timed_together(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    calls = []

    def call():
        calls.append(None)
        now[0] += 0.004

    assert timing.seconds_per_call(call, CPU, least=0.02) == pytest.approx(0.004)
    assert len(calls) == 1 + 5
    calls.clear()
    assert timing.seconds_per_call(call, CPU, least=0.004) == pytest.approx(0.004)
    assert len(calls) == 1


def test_threads_are_as_before():
    before = torch.get_num_threads()
    with timing.num_threads(2) as used:
        assert used == torch.get_num_threads() == 2
    with timing.num_threads(None) as used:
        assert used == before
    assert torch.get_num_threads() == before
    with pytest.raises(ConfigError, match="threads: found 0"), timing.num_threads(0):
        pass


def test_bandwidth_is_bytes_over_the_fastest_time(monkeypatch):
    times = iter([0.5, 0.25, 2.0] * 2)
    monkeypatch.setattr("bytelm.benchmarks.bandwidth.seconds_per_call", lambda *_: next(times))
    found = measure_bandwidth(40_000, CPU, repeats=2)
    assert (found.num_bytes, found.bytes_per_second) == (3 * 16_384, 3 * 16_384 / 0.25)


@pytest.mark.parametrize(("law", "kind", "tables"), LAWS)
def test_weight_bytes_are_those_of_the_matrices_that_are_read(law, kind, tables):
    model = tiny_model(kind, tables)

    def matrices(part):
        return sum(m.weight.numel() for m in part.modules() if isinstance(m, nn.Linear))

    body = matrices(model.merger) + matrices(model.blocks)
    heads = matrices(model.heads)
    first = model.config.width * 256
    assert weight_bytes(model, law) == 4 * (body + (first if law == "next" else heads))
    assert weight_bytes(model, law, "lookup") == weight_bytes(model, law, "auto") == weight_bytes(model, law)
    assert weight_bytes(model, "next", "heads") == 4 * (body + heads)
    assert weight_bytes(model, law, with_heads=False) == 4 * body
    assert weight_bytes(model.to(torch.bfloat16), law, with_heads=False) == 2 * body


@pytest.mark.parametrize("law", ["chain", "next"])
def test_slot_bytes_are_those_of_the_cache(law):
    lm = language_model()
    target = lm.make_target(law)
    _start(target, 2, 32, 4)
    rows = 2 * (4 if law == "next" else 1)
    assert target.cache.num_bytes == slot_bytes(lm.config, 4) * rows * target.cache.capacity


@pytest.mark.parametrize(("law", "kind", "tables"), LAWS)
def test_a_timed_forward_commits_nothing_and_sees_the_whole_cache(law, kind, tables):
    target = language_model(kind, tables).make_target(law)
    seen = []
    read = target._forward
    target._forward = lambda *args: seen.append(args[-1]) or read(*args)
    with torch.inference_mode():
        _start(target, 2, 32, 8)
        assert target.cache.capacity == 32
        call = _forward(target, 2, _Kind(law, 8, target.unit))
        found = [call() for _ in range(6)]
    assert seen[-4:] == [32] * 4
    (first, first_symbols), (last, last_symbols) = found[0], found[-1]
    assert first.num_states == last.num_states == 8
    assert last_symbols.shape == (2, 8, target.unit)
    np.testing.assert_array_equal(first_symbols, last_symbols)
    torch.testing.assert_close(first.h_BRD, last.h_BRD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "law", "heads"), [("chained", "chain", 4), ("independent", "product", 4)])
def test_every_kind_of_forward_is_measured_against_one_position(kind, law, heads, monkeypatch):
    times = {1: 1.0, 2: 1.5, 4: 2.0, 8: 3.0, 16: 5.0}
    monkeypatch.setattr(forwards_module, "_forward", lambda target, batch, kind: lambda: kind)
    monkeypatch.setattr(forwards_module, "seconds_per_call", lambda case, _: times[case().positions] + case().heads / 8)
    lm = language_model(kind)
    costs = measure_forwards(lm, slots=32, repeats=3)
    expected = [(name, n, 0) for name in (law, "next") for n in POSITIONS]
    expected[5:5] = [(law, 1, heads)]
    assert [(c.law, c.positions, c.heads) for c in costs] == [*expected, ("next", 1, 1)]
    for cost in costs:
        assert cost.seconds == cost.ratio == times[cost.positions] + cost.heads / 8
        assert (cost.batch, cost.slots, cost.compiled) == (1, 32, False)
        streams = min(cost.positions, 4) if cost.law == "next" else 1
        read = weight_bytes(lm.model, cost.law, with_heads=cost.heads > 0) + streams * 32 * slot_bytes(lm.config, 4)
        assert cost.bytes_read_per_second == pytest.approx(read / cost.seconds)


def test_what_a_forward_takes_right_after_another_does_not_count(monkeypatch):
    """Each kind is first called as long again: here its first turn takes nine times as long."""
    monkeypatch.setattr(forwards_module, "_forward", lambda target, batch, kind: lambda: kind)
    before = []

    def seconds(case, _):
        slow = before[-1:] != [case()]
        before.append(case())
        return 9.0 if slow else 1.0

    monkeypatch.setattr(forwards_module, "seconds_per_call", seconds)
    costs = measure_forwards(language_model("chained"), slots=32, repeats=2)
    assert {cost.seconds for cost in costs} == {1.0}


def test_forwards_are_measured_and_a_short_context_bounds_them():
    lm = LanguageModel(tiny_model(context=32), Tokenizer(get_encoding("dense-ja")))
    costs = measure_forwards(lm, laws=["next"], batch=2, repeats=1)
    assert [(c.positions, c.heads, c.slots) for c in costs] == [(1, 0, 8), (2, 0, 8), (4, 0, 8), (1, 1, 8)]
    assert all(cost.seconds > 0 for cost in costs)

"""Rivals of training: their sizes, their operations, and the vocabulary that makes heads cost the same."""

import dataclasses
import sys

import pytest
import torch
from support import tiny_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bytelm.benchmarks.matrix_rate import measure_matrix_rate
from bytelm.benchmarks.operations import head_products, merger_products
from bytelm.benchmarks.storages import Storages
from bytelm.benchmarks.training_rivals import (
    TransformersLlama,
    new_rivals,
    position_operations,
    rival_config,
    rival_vocabulary,
)
from bytelm.model.axes import NormConfig
from bytelm.model.presets import get_preset


def test_the_vocabulary_makes_the_head_cost_what_ours_costs():
    for name in ("small", "base", "6.5b"):
        config = get_preset(name)
        ours = merger_products(config) + head_products(config, config.laws[0])
        vocab_size = rival_vocabulary(config)
        assert vocab_size % 64 == 0
        assert vocab_size * config.width == pytest.approx(ours, abs=32 * config.width)
        rival = rival_config(config, vocab_size)
        assert position_operations(rival, 256) == pytest.approx(position_operations(config, 1_024), rel=0.01)


def test_transformers_has_the_same_body_and_the_stated_operations():
    pytest.importorskip("transformers")
    config = tiny_config()
    rival = TransformersLlama(config, 128)
    assert sum(p.numel() for p in rival.parameters()) == rival_config(config, 128).num_parameters()
    tokens = torch.randint(0, 128, (2, 16))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        rival(tokens).backward()
    # The counter takes attention over all pairs of positions; half of them are not seen.
    pairs = 3 * 2 * 2 * config.num_blocks * config.attention.num_heads * config.attention.head_width * (16 - 17 / 2)
    found = counter.get_total_flops() / tokens.numel()
    assert found == pytest.approx(position_operations(rival_config(config, 128), 16) + pairs, rel=0.01)


def test_what_is_missing_or_differs_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "litgpt", None)
    found, skipped = new_rivals(tiny_config(), 64)
    assert (found, [entry.name for entry in skipped]) == ([], ["transformers", "litgpt"])
    assert all("cannot be imported" in entry.reason and "\n" not in entry.reason for entry in skipped)
    _, skipped = new_rivals(dataclasses.replace(tiny_config(), norm=NormConfig(kind="layer")), 64)
    assert all("the body is not Llama's" in entry.reason for entry in skipped)


def test_the_rate_of_products_is_plausible():
    assert 1e8 < measure_matrix_rate(torch.float32, torch.device("cpu")) < 1e14


def test_storages_count_each_once_and_bear_sparse_tensors():
    there = torch.zeros(10)
    with Storages([there]) as storages:
        a = torch.zeros(100)
        b = a[:50]
        assert storages.now == 440
        rows, values = torch.tensor([[1, 2]]), torch.ones(2, 3)
        grown = torch.sparse_coo_tensor(rows, values, (1_000, 3), check_invariants=True) * 2
        assert 440 < storages.now < 1_000
        del a, b, grown
    assert storages.high > 440
    assert storages.now < 300

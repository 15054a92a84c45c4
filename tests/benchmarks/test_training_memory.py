"""Planned bytes against what autograd keeps, and against the highest sum of storages while a step runs."""

from dataclasses import replace

import pytest
import torch
from support import bytes_kept

from bytelm.benchmarks.accelerators import get_accelerator
from bytelm.benchmarks.activations import Activations, check_precision, matrix_parameters, stored_bytes
from bytelm.benchmarks.storages import Storages
from bytelm.benchmarks.training_plan import Workload, memory_moments, peak_memory, plan_layouts
from bytelm.errors import ConfigError
from bytelm.model.config import AlibiConfig, FeedForwardConfig, NgramConfig, NormConfig
from bytelm.model.ends import ChainedHeadsConfig, IndependentHeadsConfig, MergerConfig, MLPMergerConfig, NextPatchConfig
from bytelm.model.presets import get_preset
from bytelm.training import ByteLMModule, OptimizerConfig

PRECISIONS = ["32-true", "bf16-mixed", "bf16-true"]
TINY = get_preset("tiny")
TABLES = NgramConfig(rows=64)
WITH_TABLES = replace(
    TINY,
    merger=MergerConfig(byte_width=24, tables=TABLES),
    heads=ChainedHeadsConfig(byte_width=16, inner=64, tables=TABLES),
)
NARROW_TABLES = replace(
    TINY,
    merger=MergerConfig(byte_width=24, tables=replace(TABLES, row_width=20)),
    heads=ChainedHeadsConfig(byte_width=16, inner=64, tables=replace(TABLES, row_width=20)),
)
INDEPENDENT = replace(TINY, heads=IndependentHeadsConfig(), width=96)
GPTJ = replace(
    INDEPENDENT,
    wiring="parallel",
    norm=NormConfig(kind="layer"),
    feedforward=FeedForwardConfig(kind="gelu", inner=256, bias=True),
)
CONFIGS = {
    "chained": TINY,
    "independent": INDEPENDENT,
    "mlp merger": replace(INDEPENDENT, merger=MLPMergerConfig(byte_width=24, inner=80)),
    "wide": replace(get_preset("small"), num_blocks=1),
    "tables": WITH_TABLES,
    "narrow tables": NARROW_TABLES,
    "heads that mix": replace(NARROW_TABLES, heads=replace(NARROW_TABLES.heads, mixed=True)),
    "next patch": replace(TINY, next_patch=NextPatchConfig(inner=96)),
    "next patch and tables": replace(WITH_TABLES, next_patch=NextPatchConfig(depth=3)),
    "parallel": GPTJ,
    "alibi": replace(TINY, position=AlibiConfig()),
}
# Found: 1.000 but for these, at most 1.016, 1.012, 1.083. Guesses of a state may share a storage, which counts twice; a
# layer norm under autocast is float32 on a GPU, as planned, and bfloat16 on the CPU.
WIDER = {"next patch": 0.02, "next patch and tables": 0.02, "parallel": 0.10}


@pytest.fixture(autouse=True)
def _unit_for_bfloat16(monkeypatch):
    """Plans are of GPUs, whose attention keeps its result, too; CPUs keep less, or more where they lack the unit."""
    monkeypatch.setattr("bytelm.nn.widened.has_unit", True)
    monkeypatch.setattr("bytelm.nn.blocked_attention.has_unit", False)
    monkeypatch.setattr("bytelm.nn.elementwise.core", None)


def make_module(config, precision, *, checkpointing=False):
    module = ByteLMModule(config=config, activation_checkpointing=checkpointing)
    module.log = lambda *_, **__: None
    return module.to(torch.bfloat16) if precision == "bf16-true" else module


def loss(module, precision, windows, window):
    batch = torch.randint(0, 256, (windows, window + module.config.patch), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision.endswith("mixed")):
        return module.training_step(batch, 0)


def step_bytes(module, precision, windows, window):
    return bytes_kept(module, lambda: loss(module, precision, windows, window))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_activations_are_what_autograd_keeps(name, precision):
    config = CONFIGS[name]
    found = step_bytes(make_module(config, precision), precision, 3, 256)
    planned = Activations(config=config, positions=64, windows=3, precision=precision).total()
    planned += 2 * matrix_parameters(config) if precision == "bf16-mixed" else 0
    assert planned == pytest.approx(found, rel=WIDER.get(name, 0), abs=0 if name in WIDER else 8)


def measured_peak(config, precision, windows, window, *, checkpointing, accumulate, tables="all_rows"):
    """Highest bytes of two steps in Lightning's order: forward, free the gradients, backward; then the update."""
    module = make_module(config, precision, checkpointing=checkpointing)
    optimizer, _ = OptimizerConfig(tables=tables).build(module.model, 10)
    with Storages(module.parameters()) as storages:
        for _ in range(2):
            for i in range(accumulate):
                nats = loss(module, precision, windows, window)
                if i == 0:
                    optimizer.zero_grad()
                nats.backward()
                del nats
            optimizer.step()
    return storages.high


WIDE_INNER = replace(
    INDEPENDENT, width=64, feedforward=FeedForwardConfig(inner=1_024), merger=MergerConfig(byte_width=16)
)
PEAKS = {  # the moment that is the highest
    "forward": (WITH_TABLES, "bf16-mixed", 4, False, 1),
    "loss": (INDEPENDENT, "bf16-true", 4, True, 2),
    "last block": (WIDE_INNER, "32-true", 4, True, 2),
    "first block": (WIDE_INNER, "bf16-mixed", 4, True, 1),
}


@pytest.mark.parametrize("moment", PEAKS)
def test_the_peak_of_a_step_is_planned_within_ten_per_cent(moment):
    config, precision, windows, checkpointing, accumulate = PEAKS[moment]
    found = measured_peak(config, precision, windows, 256, checkpointing=checkpointing, accumulate=accumulate)
    workload = Workload(
        model=config,
        window=256,
        batch_size=windows,
        accumulate=accumulate,
        num_gpus=1,
        steps=2,
        precision=precision,
    )
    planned = peak_memory(workload, "replicated", checkpointing)
    assert planned.moment == moment
    assert planned.total == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_of_rows_are_planned(accumulate):
    tables = NgramConfig(rows=5_000)
    config = replace(WITH_TABLES, merger=MergerConfig(byte_width=24, tables=tables))
    shared = {"checkpointing": False, "accumulate": accumulate}
    found = [measured_peak(config, "32-true", 2, 256, **shared, tables=name) for name in ("all_rows", "read_rows")]
    workload = Workload(
        model=config, window=256, batch_size=2, accumulate=accumulate, num_gpus=1, steps=2, precision="32-true"
    )
    workloads = [workload, replace(workload, read_rows=True)]
    planned = [peak_memory(each, "replicated", checkpointing=False).total for each in workloads]
    assert planned == pytest.approx(found, rel=0.1)
    assert planned[0] - planned[1] > 5_000 * 3 * 128 * 4 * 0.8
    eight = replace(workloads[1], num_gpus=8)
    assert {plan.layout for plan in plan_layouts(eight, get_accelerator("h100"), 0.4)} == {"replicated"}


def test_states_of_several_gpus():
    """AdamW in float32 is 16 bytes per weight (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1: 12 and 4)."""
    config = TINY
    one = Workload(model=config, window=256, batch_size=1, accumulate=1, num_gpus=1, steps=1, precision="32-true")
    eight = replace(one, num_gpus=8)
    n = config.num_parameters()

    def states(workload, layout):
        m = memory_moments(workload, layout, checkpointing=False)[0]
        return m.weights + m.gradients + m.moments, m.buckets, m.gathered > 0

    assert states(one, "replicated") == (16 * n, 0, False)
    assert states(one, "sharded") == (16 * n, 0, False)
    assert states(eight, "replicated") == (16 * n, 4 * n, False)
    assert states(replace(eight, bucket_views=True), "replicated") == (16 * n, 0, False)
    assert states(eight, "sharded") == (16 * -(-n // 8), 0, True)
    assert states(replace(one, precision="bf16-true"), "replicated") == (8 * n, 0, False)


@pytest.mark.parametrize("name", CONFIGS)
def test_matrices_are_counted(name):
    module = make_module(CONFIGS[name], "32-true")
    matrices = [m.weight.numel() for m in module.modules() if isinstance(m, torch.nn.Linear)]
    assert matrix_parameters(CONFIGS[name]) == sum(matrices)


def test_precisions():
    assert [stored_bytes(check_precision(name)) for name in PRECISIONS] == [4, 4, 2]
    with pytest.raises(ConfigError, match="found '64-true', expected one of 32-true, bf16-mixed"):
        check_precision("64-true")

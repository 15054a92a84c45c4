"""Operations of training against torch's counter; hours and windows against arithmetic by hand."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bytelm.benchmarks.accelerators import ACCELERATORS, Accelerator, get_accelerator
from bytelm.benchmarks.training_plan import Workload, plan_layouts, training_operations
from bytelm.errors import ConfigError
from bytelm.model.config import FeedForwardConfig
from bytelm.model.ends import IndependentHeadsConfig, NextPatchConfig
from bytelm.model.presets import get_preset
from bytelm.training import ByteLMModule

TINY = get_preset("tiny")
CONFIGS = {
    "chained": TINY,
    "independent": replace(TINY, heads=IndependentHeadsConfig()),
    "gelu": replace(TINY, feedforward=FeedForwardConfig(kind="gelu", inner=200, bias=True)),
    "next patch": replace(TINY, next_patch=NextPatchConfig(depth=1)),
}


def counted(config, window, *, checkpointing):
    """Operations of forward and backward pass that torch counts for one window; attention as of all pairs."""
    module = ByteLMModule(config=config, activation_checkpointing=checkpointing)
    module.log = lambda *_, **__: None
    batch = torch.zeros(1, window + config.patch, dtype=torch.uint8)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module.training_step(batch, 0).backward()
    return counter.get_total_flops()


def unmasked(config, window):
    """What the half of all pairs adds to the other: torch counts scores and their use at every pair, thrice."""
    slots = window / config.patch
    keys = (slots - 1) / 2
    return 3 * 2 * config.num_blocks * 2 * config.attention.num_heads * config.attention.head_width * keys * slots


@pytest.mark.parametrize("name", CONFIGS)
def test_operations_are_those_that_torch_counts(name):
    config, window = CONFIGS[name], 128
    planned = training_operations(config, window)
    found = counted(config, window, checkpointing=False)
    expected = planned.learning * window + unmasked(config, window)
    if config.next_patch is None:
        assert expected == found
    else:  # there is one guess less than there are positions, and the first state has no gradient
        assert expected == pytest.approx(found, rel=0.04)
    again = counted(config, window, checkpointing=True)
    assert again - found == pytest.approx(planned.recomputed * window + unmasked(config, window) / 3)


def test_hours_and_windows():
    workload = Workload(
        model=TINY, window=1_024, batch_size=2, accumulate=4, num_gpus=8, steps=100, precision="bf16-mixed"
    )
    assert (workload.windows_per_step, workload.symbols_per_step, workload.symbols) == (64, 65_536, 6_553_600)
    gpu = Accelerator(name="x", memory_bytes=1e9, flops=1e12, bandwidth=1e9)
    plans = plan_layouts(workload, gpu, 0.5)
    assert [(p.layout, p.checkpointing) for p in plans] == [
        ("replicated", False),
        ("replicated", True),
        ("sharded", False),
        ("sharded", True),
    ]
    operations = training_operations(TINY, 1_024)
    seconds = workload.symbols * operations.learning / (8 * 0.5 * 1e12)
    assert plans[0].hours == pytest.approx(seconds / 3_600)
    assert plans[0].step_s == pytest.approx(seconds / 100)
    assert plans[1].hours / plans[0].hours == pytest.approx(1 + operations.recomputed / operations.learning)
    assert plans[0].update_s == pytest.approx(7 * 4 * TINY.num_parameters() / 1e9)
    assert all(p.fits for p in plans)
    assert not any(p.fits for p in plan_layouts(workload, replace(gpu, memory_bytes=1e6), 0.5))
    assert len(plan_layouts(replace(workload, num_gpus=1), gpu, 0.5)) == 2


def test_gpus():
    assert get_accelerator("h200").memory_bytes == 141e9
    assert all(name == gpu.name and gpu.flops > 1e14 for name, gpu in ACCELERATORS.items())
    with pytest.raises(ConfigError, match="found 'tpu', expected one of a100-40gb"):
        get_accelerator("tpu")

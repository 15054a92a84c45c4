import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import KINDS, tiny_model

from bytelm.errors import ConfigError
from bytelm.training import OptimizerConfig


def test_defaults_are_the_recipe_of_the_reference_model():
    config = OptimizerConfig()
    assert (config.lr, config.min_lr, config.warmup_steps) == (5e-4, 1e-5, 2_000)
    assert (config.beta1, config.beta2, config.eps, config.weight_decay) == (0.9, 0.999, 1e-8, 0.01)


def test_factor_at_its_corner_points():
    config = OptimizerConfig(lr=1e-3, min_lr=1e-4, warmup_steps=10)
    assert config.factor(0, 111) == pytest.approx(1 / 11)
    assert config.factor(9, 111) == pytest.approx(10 / 11)
    assert config.factor(10, 111) == 1
    assert config.factor(60, 111) == pytest.approx(0.1 + 0.9 * 0.5)
    assert config.factor(110, 111) == pytest.approx(0.1)
    assert config.factor(500, 111) == pytest.approx(0.1)
    assert OptimizerConfig(warmup_steps=0).factor(0, 5) == 1
    assert OptimizerConfig(warmup_steps=0).factor(0, 1) == 1
    assert OptimizerConfig(warmup_steps=10).factor(4, 3) == pytest.approx(5 / 11)
    assert OptimizerConfig(min_lr=0.0, warmup_steps=0).factor(4, 5) == pytest.approx(0)


@given(st.integers(0, 20), st.integers(1, 60), st.floats(0, 1))
def test_factor_rises_then_falls_and_stays_in_range(warmup, num_steps, low):
    config = OptimizerConfig(lr=1e-3, min_lr=1e-3 * low, warmup_steps=warmup)
    factors = [config.factor(step, num_steps) for step in range(num_steps)]
    assert all(0 <= f <= 1 + 1e-12 for f in factors)
    rising, falling = factors[: warmup + 1], factors[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_matrices_of_linear_layers_alone_decay(kind):
    model = tiny_model(*kind)
    optimizer, schedule = OptimizerConfig(weight_decay=0.3, lr=1e-2, warmup_steps=3).build(model, 10)
    decayed, free = optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {
        n for n in names.values() if n.endswith("weight") and not any(k in n for k in ("norm", ".embedding.", "table"))
    }
    assert sorted(names.values()) == sorted(names[id(p)] for g in optimizer.param_groups for p in g["params"])
    assert decayed["betas"] == (0.9, 0.999)
    assert schedule.get_last_lr() == pytest.approx([1e-2 / 4] * 2)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        shrunk = id(parameter) in {id(p) for p in decayed["params"]}
        factor = 1 - 0.3 * 1e-2 / 4 if shrunk else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", 0.0),
        ("min_lr", 1.0),
        ("min_lr", -1.0),
        ("warmup_steps", -1),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("eps", 0.0),
        ("weight_decay", -1.0),
    ],
)
def test_bad_values_are_named(field, value):
    with pytest.raises(ConfigError, match=rf"^optimizer\.{field}: found {value}"):
        OptimizerConfig.from_dict({field: value}, "optimizer")

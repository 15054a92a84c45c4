import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import KINDS, tiny_model

from bytelm.errors import ConfigError
from bytelm.training import DecayGroup, OptimizerConfig


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


def test_a_cooldown_is_a_line_to_the_last_step_after_a_rate_that_stays():
    config = OptimizerConfig(lr=1e-3, min_lr=1e-4, warmup_steps=10, cooldown_steps=20)
    assert config.factor(0, 111) == pytest.approx(1 / 11)
    assert [config.factor(step, 111) for step in (10, 50, 90)] == [1, 1, 1]
    assert config.factor(91, 111) == pytest.approx(0.1 + 0.9 * 19 / 20)
    assert config.factor(100, 111) == pytest.approx(0.1 + 0.9 * 0.5)
    assert config.factor(110, 111) == config.factor(500, 111) == pytest.approx(0.1)
    # A run is the same up to its cooldown, however long it will be.
    assert [config.factor(step, 60) for step in range(40)] == [config.factor(step, 1_000) for step in range(40)]
    with pytest.raises(ConfigError, match="cooldown_steps: found 0, expected a number > 0"):
        OptimizerConfig(cooldown_steps=0)


def test_a_run_that_goes_on_can_be_given_its_end_and_its_cooldown():
    config, model = OptimizerConfig(lr=1e-3, min_lr=0.0, warmup_steps=2, cooldown_steps=1_000), tiny_model()
    optimizer, schedule = config.build(model, 1_000_000)
    for _ in range(8):
        optimizer.step()
        schedule.step()
    again, schedule_again = dataclasses.replace(config, cooldown_steps=4).build(model, 13)
    again.load_state_dict(optimizer.state_dict())
    schedule_again.load_state_dict(schedule.state_dict())
    rates = []
    for _ in range(5):
        rates.append(again.param_groups[0]["lr"])
        again.step()
        schedule_again.step()
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4, 0.0])


@given(st.integers(0, 20), st.integers(1, 60), st.floats(0, 1), st.none() | st.integers(1, 70))
def test_factor_rises_then_falls_and_stays_in_range(warmup, num_steps, low, cooldown):
    config = OptimizerConfig(lr=1e-3, min_lr=1e-3 * low, warmup_steps=warmup, cooldown_steps=cooldown)
    factors = [config.factor(step, num_steps) for step in range(num_steps)]
    assert all(0 <= f <= 1 + 1e-12 for f in factors)
    rising, falling = factors[: warmup + (cooldown is None)], factors[warmup:]
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


def test_the_first_pattern_that_a_name_matches_decides_its_decay():
    groups = (
        DecayGroup(names="blocks.0.*", weight_decay=0.4),
        DecayGroup(names="*norm.weight", weight_decay=0.2),
        DecayGroup(names="heads.unembeddings.[01].weight", weight_decay=0.0),
    )
    model = tiny_model("chained", True)
    optimizer, _ = OptimizerConfig(weight_decay=0.3, decay_groups=groups).build(model, 10)
    names = {id(p): n for n, p in model.named_parameters()}
    found = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    for name, decay in found.items():
        if name.startswith("blocks.0."):
            assert decay == 0.4
        elif name.endswith("norm.weight"):
            assert decay == 0.2
        elif name in ("heads.unembeddings.0.weight", "heads.unembeddings.1.weight"):
            assert decay == 0.0
        else:
            assert decay == (0.0 if ".embedding." in name or "table" in name else 0.3)


@pytest.mark.parametrize("algorithm", ["adamw", "muon"])
@pytest.mark.parametrize("tables", ["all_rows", "read_rows"])
def test_tables_can_have_a_multiple_of_the_rate_all_the_way(tables, algorithm):
    if algorithm == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    decays = (DecayGroup(names="merger.tables.*", weight_decay=0.25),)
    options = {"lr": 1e-2, "min_lr": 0.0, "warmup_steps": 2, "cooldown_steps": 4, "decay_groups": decays}
    config = OptimizerConfig(algorithm=algorithm, tables=tables, table_lr_scale=8.0, **options)
    model = tiny_model("chained", True)
    optimizer, schedule = config.build(model, 10)
    names = {p: name for name, p in model.named_parameters()}
    for step in range(10):
        rates = {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert sorted(rates) == sorted(names.values())
        for name, rate in rates.items():
            times = 8 if name in ("merger.tables.table.weight", "heads.tables.table.weight") else 1
            assert rate == pytest.approx(1e-2 * config.factor(step, 10) * times), name
        optimizer.step()
        schedule.step()
    decay_of = {names[p]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay_of["merger.tables.table.weight"] == 0.25
    assert decay_of["heads.tables.table.weight"] == 0.0


@pytest.mark.parametrize("tables", ["all_rows", "read_rows"])
def test_a_first_step_moves_read_rows_by_their_rate_and_all_else_by_its_own(tables):
    moved = []
    for scale in (1.0, 8.0):
        model = tiny_model("chained", True)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        config = OptimizerConfig(lr=1e-3, warmup_steps=0, weight_decay=0.0, tables=tables, table_lr_scale=scale)
        optimizer, _ = config.build(model, 10)
        model.patch_nats(torch.arange(48).view(2, 24) * 5).mean().backward()
        optimizer.step()
        moved.append({name: p.detach() - before[name] for name, p in model.named_parameters()})
    for name, step in moved[0].items():
        times = 8 if name.endswith("table.weight") else 1
        torch.testing.assert_close(moved[1][name], step * times, rtol=1e-3, atol=1e-7)
        assert step.abs().max() == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("tables", ["all_rows", "read_rows"])
def test_a_multiple_of_one_leaves_groups_and_saved_states_as_they_were(tables):
    config, model = OptimizerConfig(tables=tables, table_lr_scale=1.0), tiny_model("chained", True)
    optimizer, schedule = config.build(model, 10)
    of_tables = {p for name, p in model.named_parameters() if name.endswith("table.weight")}
    found = [{p in of_tables for p in group["params"]} for group in optimizer.param_groups]
    assert found == ([{False}, {False, True}] if tables == "all_rows" else [{False}, {False}, {True}])
    assert schedule.get_last_lr() == pytest.approx([config.lr / 2_001] * len(found))


def test_a_pattern_that_decides_nothing_is_named():
    for groups, found in (
        (["heads.*", "block.*"], r"\[1\]\.names: found 'block\.\*'"),
        (["*", "heads.*"], r"\[1\]\.names: found 'heads\.\*'"),
    ):
        config = OptimizerConfig(decay_groups=tuple(DecayGroup(names=n, weight_decay=0.1) for n in groups))
        with pytest.raises(ConfigError, match=rf"^model\.optimizer\.decay_groups{found}, expected a pattern") as caught:
            config.build(tiny_model(), 10)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^optimizer\.decay_groups\[0\]\.weight_decay: found -1"):
        OptimizerConfig.from_dict({"decay_groups": [{"names": "*", "weight_decay": -1.0}]}, "optimizer")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("momentum", 1.0),
        ("lr", 0.0),
        ("min_lr", 1.0),
        ("min_lr", -1.0),
        ("warmup_steps", -1),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("eps", 0.0),
        ("weight_decay", -1.0),
        ("table_lr_scale", 0.0),
        ("table_lr_scale", float("inf")),
        ("table_lr_scale", float("nan")),
    ],
)
def test_bad_values_are_named(field, value):
    with pytest.raises(ConfigError, match=rf"^optimizer\.{field}: found {value}"):
        OptimizerConfig.from_dict({field: value}, "optimizer")

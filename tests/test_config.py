import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import KINDS, tiny_config

from bytelm.decoding import Sampling
from bytelm.errors import ConfigError
from bytelm.model import PRESETS, ModelConfig, build_model
from bytelm.model.ends import MLPMergerConfig
from bytelm.model.presets import get_preset
from bytelm.training import OptimizerConfig

MLP = MLPMergerConfig(byte_width=6, inner=10)
CONFIGS = [
    *(tiny_config(*k) for k in KINDS),
    tiny_config(merger=MLP),
    *PRESETS.values(),
    OptimizerConfig(lr=3e-4),
    Sampling(top_k=5),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_round_trip_through_dict_and_yaml(config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    for again in (
        type(config).from_dict(config.to_dict()),
        type(config).from_yaml(config.to_yaml()),
        type(config).from_yaml(path),
    ):
        assert again == config
        assert hash(again) == hash(config)
        assert again.to_dict() == config.to_dict()


def changed(path, value):
    """The dict of a config with tables everywhere, one field changed (or removed for ``...``)."""
    data = tiny_config("chained", True).to_dict()
    *folders, last = path.split(".")
    node = data
    for name in folders:
        node = node[name]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "start"),
    [
        ("widht", 3, "model.widht: unknown field, expected one of width,"),
        ("attention.num_kvheads", 3, "model.attention.num_kvheads: unknown field"),
        ("heads.tables.row", 3, "model.heads.tables.row: unknown field"),
        ("width", ..., "model.width: missing"),
        ("attention.head_width", ..., "model.attention.head_width: missing"),
        ("merger.byte_width", ..., "model.merger.byte_width: missing"),
        ("width", "32", "model.width: found '32', expected int"),
        ("width", 32.0, "model.width: found 32.0, expected int"),
        ("width", True, "model.width: found True, expected int"),
        ("width", None, "model.width: found None, expected int"),
        ("position.base", "large", "model.position.base: found 'large', expected float"),
        ("norm.eps", False, "model.norm.eps: found False, expected float"),
        ("norm", 3, "model.norm: found 3, expected a mapping"),
        ("attention", [1, 2], "model.attention: found [1, 2], expected a mapping"),
        ("norm.kind", "batch", "model.norm.kind: found 'batch', expected one of 'rms', 'layer'"),
        ("norm.kind", ["rms"], "model.norm.kind: found ['rms'], expected one of 'rms', 'layer'"),
        ("heads.kind", "paired", "model.heads.kind: found 'paired', expected one of independent, chained, lm"),
        ("heads.kind", ["chained"], "model.heads.kind: found ['chained'], expected one of independent, chained, lm"),
        ("heads.kind", ..., "model.heads.kind: found None, expected one of independent, chained, lm"),
        ("heads", 3, "model.heads: found 3, expected a mapping"),
        ("heads.tables", True, "model.heads.tables: found True, expected a mapping"),
        ("heads.tables.orders", 3, "model.heads.tables.orders: found 3, expected a list"),
        ("heads.tables.orders", [2, "3"], "model.heads.tables.orders[1]: found '3', expected int"),
        ("merger.tables.orders", [2, 2], "model.merger.tables.orders: found (2, 2), expected distinct numbers"),
        ("merger.tables.orders", [], "model.merger.tables.orders: found (), expected distinct numbers"),
        ("merger.tables.rows", 0, "model.merger.tables.rows: found 0, expected a number > 0"),
        ("merger.tables", {"rows": 1, "chosen": True}, "model.merger.tables.rows: found 1, expected a number > 1 for"),
        (
            "heads",
            {"kind": "chained", "mixed": True},
            "model.heads.mixed: found True, expected false where there are no tables",
        ),
        ("attention.num_kv_heads", 3, "model.attention.num_kv_heads: found 3, expected a divisor of num_heads = 2"),
        ("attention.num_kv_heads", 0, "model.attention.num_kv_heads: found 0, expected a divisor"),
        ("attention.head_width", 7, "model.attention.head_width: found 7, expected an even number > 0"),
        ("attention.num_heads", 0, "model.attention.num_heads: found 0"),
        ("feedforward.inner", -1, "model.feedforward.inner: found -1"),
        ("merger.byte_width", 0, "model.merger.byte_width: found 0"),
        ("merger.kind", "sum", "model.merger.kind: found 'sum', expected one of concat, mlp, token"),
        ("merger.kind", "mlp", "model.merger.inner: missing"),
        ("merger", {"kind": "mlp", "byte_width": 4, "inner": 0}, "model.merger.inner: found 0"),
        ("merger", {"kind": "mlp", "byte_width": 0, "inner": 4}, "model.merger.byte_width: found 0"),
        ("heads.inner", 0, "model.heads.inner: found 0"),
        ("heads.byte_width", 0, "model.heads.byte_width: found 0"),
        ("position.base", 1, "model.position.base: found 1.0, expected a number > 1"),
        ("norm.eps", float("nan"), "model.norm.eps: found nan"),
        ("width", 0, "model.width: found 0"),
        ("num_blocks", 0, "model.num_blocks: found 0"),
        ("patch", 0, "model.patch: found 0"),
        ("context", 130, "model.context: found 130, expected a multiple of patch = 4"),
        ("context", 0, "model.context: found 0"),
        ("vocab_size", 300, "model.vocab_size: found 300"),
    ],
)
def test_error_begins_with_the_dotted_path(path, value, start):
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(changed(path, value), "model")
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)


def test_error_without_a_path_and_of_the_root():
    with pytest.raises(ConfigError, match=r"^attention\.num_kv_heads: found 3"):
        ModelConfig.from_dict(changed("attention.num_kv_heads", 3))
    with pytest.raises(ConfigError, match=r"^model: found 5, expected a mapping of fields of ModelConfig"):
        ModelConfig.from_dict(5, "model")
    with pytest.raises(ConfigError, match=r"^num_kv_heads: found 3"):
        dataclasses.replace(tiny_config().attention, num_kv_heads=3)


def test_unreadable_yaml_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"^document: not YAML: "):
        ModelConfig.from_yaml("width: [3")
    with pytest.raises(ConfigError, match="ModelConfig: found None"):
        ModelConfig.from_yaml("")
    path = tmp_path / "bad.yaml"
    with pytest.raises(ConfigError, match=r"bad\.yaml: cannot be read: No such file"):
        ModelConfig.from_yaml(path)
    path.write_bytes(b"width: \xff\xfe")
    with pytest.raises(ConfigError, match=r"bad\.yaml: not YAML: "):
        ModelConfig.from_yaml(path)
    path.write_text("width: {", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.yaml: not YAML: ") as caught:
        ModelConfig.from_yaml(path)
    assert "\n" not in str(caught.value)


def count(config):
    return sum(p.numel() for p in build_model(config, device="meta").parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_count_their_parameters(name):
    config = get_preset(name)
    assert config.num_parameters() == count(config)
    model = build_model(config, device="meta")
    body = sum(p.numel() for module in (model.blocks, model.norm) for p in module.parameters())
    assert config.num_body_parameters() == body


def test_the_largest_preset_has_the_scale_of_the_reference_model():
    config = get_preset("6.5b")
    assert (config.width, config.num_blocks, config.attention.num_heads, config.feedforward.inner) == (
        4_096,
        32,
        32,
        11_008,
    )
    assert config.attention.num_heads == config.attention.num_kv_heads
    assert config.attention.num_heads * config.attention.head_width == config.width
    assert (config.patch, config.heads.kind, config.context) == (4, "independent", 11_520)
    assert 6.4e9 < config.num_parameters() < 6.6e9
    assert 1.1e9 < get_preset("1.3b").num_parameters() < 1.5e9


def test_unknown_preset():
    with pytest.raises(
        ConfigError, match=r"^preset: found 'huge', expected one of tiny, small, base, 1\.3b, 6\.5b, gptj-toy, gptj-6b$"
    ):
        get_preset("huge")


@st.composite
def small_configs(draw):
    """Plain values: run-time type checks draw random numbers, which Hypothesis does not want inside a strategy."""
    size = st.integers(1, 9)
    kv_heads = draw(st.integers(1, 3))
    patch = draw(st.integers(1, 5))
    orders = st.lists(st.integers(1, patch), min_size=1, unique=True)
    tables = st.none() | st.builds(lambda o, r: {"orders": o, "rows": r}, orders, size)
    chained = st.builds(
        lambda b, i, t, u: {"kind": "chained", "byte_width": b, "inner": i, "tables": t, "unembedding": u},
        size,
        size,
        tables,
        st.sampled_from(["own", "shared"]),
    )
    heads = draw(chained | st.just({"kind": "independent"}))
    next_patch = st.none() | st.builds(lambda b, i: {"byte_width": b, "inner": i}, size, size)
    return {
        "width": draw(size),
        "num_blocks": draw(st.integers(1, 3)),
        "attention": {
            "num_heads": kv_heads * draw(st.integers(1, 3)),
            "num_kv_heads": kv_heads,
            "head_width": 2 * draw(st.integers(1, 4)),
        },
        "feedforward": {"inner": draw(size)},
        "merger": {"byte_width": draw(size), "tables": draw(tables)},
        "heads": heads,
        "next_patch": draw(next_patch) if heads["kind"] == "chained" else None,
        "patch": patch,
        "context": patch * draw(size),
    }


@given(small_configs())
def test_any_config_counts_its_parameters_and_round_trips(values):
    config = ModelConfig.from_dict(values)
    assert config.num_parameters() == count(config)
    assert ModelConfig.from_yaml(config.to_yaml()) == config


def test_weights_are_a_function_of_the_seed():
    first, again, other = (build_model(tiny_config(), seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if first[name].dim() > 1)


def test_initial_deviations():
    model = build_model(dataclasses.replace(tiny_config(), num_blocks=8, width=64), 0)
    weights = model.state_dict()
    assert weights["blocks.3.feedforward.gate_up.weight"].std() == pytest.approx(0.02, rel=0.1)
    assert weights["blocks.3.feedforward.down.weight"].std() == pytest.approx(0.02 / 4, rel=0.1)
    assert weights["blocks.3.attention.output.weight"].std() == pytest.approx(0.02 / 4, rel=0.1)
    assert (weights["norm.weight"] == 1).all()

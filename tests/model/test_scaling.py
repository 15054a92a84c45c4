"""Models at equal cost: proportions, operations, and the time of a step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_config

from bytelm.benchmarks.equal_cost import (
    operations_per_character,
    seconds_per_step,
    training_compute,
    with_operations,
)
from bytelm.benchmarks.operations import (
    body_operations_per_symbol,
    head_products,
    merger_products,
    operations_per_symbol,
)
from bytelm.errors import ConfigError
from bytelm.model.build import build_model
from bytelm.model.presets import PRESETS
from bytelm.model.scaling import at_width
from bytelm.model.twins import token_twin


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"gptj-6b", "6.5b"}))
def test_proportions_are_kept(name):
    config = PRESETS[name]
    assert at_width(config, config.width) == config
    double = at_width(config, 2 * config.width)
    assert (double.attention.head_width, double.feedforward.inner) == (
        2 * config.attention.head_width,
        2 * config.feedforward.inner,
    )
    assert at_width(double, config.width) == config
    assert (double.num_blocks, double.patch, double.context) == (config.num_blocks, config.patch, config.context)
    assert build_model(double, device="meta").config.width == 2 * config.width


def test_no_width_is_refused():
    with pytest.raises(ConfigError, match="width: found 0"):
        at_width(tiny_config(), 0)


@given(
    st.sampled_from([tiny_config(), tiny_config("independent"), token_twin(tiny_config(), 500, 128)]),
    st.floats(0.3, 4.0),
    st.floats(1e3, 1e8),
)
def test_no_other_width_comes_closer(config, symbols_per_char, operations):
    step = 8

    def distance(width):
        return abs(operations_per_character(at_width(config, width), symbols_per_char, 100) - operations)

    found = with_operations(config, symbols_per_char, 100, operations, step)
    assert found.width % step == 0
    others = [width for width in (found.width - step, found.width + step) if width > 0]
    assert all(distance(found.width) <= distance(width) for width in others)


@pytest.mark.parametrize("law", ["chain", "next"])
def test_body_and_the_rest_make_all_operations(law):
    config = tiny_config()
    positions = 1 / config.patch if law == "chain" else 1
    outside = 2 * positions * (merger_products(config) + head_products(config, law))
    body = body_operations_per_symbol(config, law, 40)
    assert operations_per_symbol(config, law, 40) == pytest.approx(body + outside)


def test_compute_grows_with_text_and_steps_take_time():
    config = tiny_config()
    assert training_compute(config, 64, 2000) == pytest.approx(2 * training_compute(config, 64, 1000))
    assert seconds_per_step(config, 64, 2, steps=1) > 0

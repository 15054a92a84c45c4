"""The benchmark measures what it says: all ways of a model, the same text for all drafters, ratios against plain."""

import pytest

from bytelm.benchmarks import measure_decoding
from bytelm.encoding import get_encoding
from bytelm.hub import LanguageModel
from bytelm.model import build_model
from bytelm.model.config import (
    AttentionConfig,
    ChainedHeadsConfig,
    FeedForwardConfig,
    IndependentHeadsConfig,
    MergerConfig,
    ModelConfig,
)


@pytest.mark.parametrize(
    ("heads", "ways"),
    [
        (ChainedHeadsConfig(byte_width=8, inner=16), [("next", "none"), ("next", "heads"), ("chain", "none")]),
        (IndependentHeadsConfig(), [("next", "none"), ("next", "heads"), ("product", "none")]),
    ],
)
def test_every_way_is_measured_against_plain_decoding(heads, ways):
    config = ModelConfig(
        width=32,
        num_blocks=1,
        context=256,
        attention=AttentionConfig(num_heads=2, num_kv_heads=1, head_width=16),
        feedforward=FeedForwardConfig(inner=32),
        merger=MergerConfig(byte_width=8),
        heads=heads,
    )
    lm = LanguageModel(build_model(config), get_encoding("dense-ja"))
    speeds = measure_decoding(lm, ["山", "川の"], max_new_tokens=12, repeats=2)
    assert [(s.law, s.draft) for s in speeds] == ways
    plain, drafted, patch = speeds
    assert plain.ratio == 1.0
    assert all(s.ratio > 0 and s.chars_per_second > 0 for s in speeds)
    assert plain.chars_per_forward <= 1.0
    assert drafted.chars_per_forward >= plain.chars_per_forward
    texts = lm.generate(["山", "川の"], max_new_tokens=12, law=patch.law).texts
    expected = sum(character != "\ufffd" for text in texts for character in text) / (2 * 3)
    assert patch.chars_per_forward == pytest.approx(expected)

"""Named sizes. A preset is a config; variants are ``dataclasses.replace`` of one."""

from bytelm.errors import ConfigError
from bytelm.model.config import AttentionConfig, FeedForwardConfig, ModelConfig, NormConfig, RotaryConfig
from bytelm.model.ends import (
    ChainedHeadsConfig,
    IndependentHeadsConfig,
    LMHeadConfig,
    MergerConfig,
    TokenEmbeddingConfig,
)


def _chained(width: int, num_blocks: int, num_heads: int, num_kv_heads: int, inner: int, context: int) -> ModelConfig:
    return ModelConfig(
        width=width,
        num_blocks=num_blocks,
        attention=AttentionConfig(num_heads=num_heads, num_kv_heads=num_kv_heads, head_width=width // num_heads),
        feedforward=FeedForwardConfig(inner=inner),
        merger=MergerConfig(byte_width=width // 4),
        heads=ChainedHeadsConfig(byte_width=min(256, width // 4), inner=width),
        context=context,
    )


def _gptj(width: int, num_blocks: int, num_heads: int, turned: int, num_rows: int, context: int) -> ModelConfig:
    """The shape of GPT-J, with a token in every row."""
    return ModelConfig(
        width=width,
        num_blocks=num_blocks,
        attention=AttentionConfig(num_heads=num_heads, num_kv_heads=num_heads, head_width=width // num_heads),
        feedforward=FeedForwardConfig(kind="gelu", inner=4 * width, bias=True),
        merger=TokenEmbeddingConfig(num_rows=num_rows),
        heads=LMHeadConfig(num_rows=num_rows, bias=True),
        position=RotaryConfig(width=turned),
        norm=NormConfig(kind="layer", eps=1e-5),
        wiring="parallel",
        context=context,
        patch=1,
        vocab_size=num_rows,
    )


PRESETS: dict[str, ModelConfig] = {
    "tiny": _chained(128, 2, 4, 2, 352, 1_024),
    "small": _chained(256, 6, 4, 2, 704, 1_024),
    "base": _chained(768, 12, 12, 4, 2_048, 4_096),
    "1.3b": _chained(2_048, 24, 16, 8, 5_632, 11_520),
    # Width, depth, heads and feed-forward of the byGPT-JP 6.5B scale: plain multi-head attention, independent heads.
    "6.5b": ModelConfig(
        width=4_096,
        num_blocks=32,
        attention=AttentionConfig(num_heads=32, num_kv_heads=32, head_width=128),
        feedforward=FeedForwardConfig(inner=11_008),
        merger=MergerConfig(byte_width=1_024),
        heads=IndependentHeadsConfig(),
        context=11_520,
    ),
    "gptj-toy": _gptj(64, 2, 4, 8, 512, 1_024),
    "gptj-6b": _gptj(4_096, 28, 16, 64, 50_400, 2_048),
}


def get_preset(name: str) -> ModelConfig:
    """The preset of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset: found {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]

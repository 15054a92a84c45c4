"""Controls of a model of several heads: the same body over single bytes, and over the tokens of a BPE.

A twin keeps width, blocks, attention, feed-forward, norms and positions of the body, so the parameters of the body are
the same; trained with the same settings it reads as much text in each step. Not the same are embedding and head, and
the operations per character, for a position of the body stands for less text, or for another amount of it. N-gram
tables and the next-patch module, which read inside of a patch, are left out; a twin of tokens may have tables of its
own.
"""

import dataclasses

from bytelm.errors import ConfigError
from bytelm.model.config import ModelConfig, NgramConfig
from bytelm.model.ends import IndependentHeadsConfig, LMHeadConfig, MergerConfig, TokenEmbeddingConfig


def next_byte_twin(config: ModelConfig) -> ModelConfig:
    """The model of P = K = 1: a position for each byte, which predicts the next one.

    It reads as many bytes at once, at P times the positions.

    Raises:
        ConfigError: the model is one of tokens, or has one head already.
    """
    byte_width = _merger(config).byte_width
    return dataclasses.replace(
        config,
        patch=1,
        merger=MergerConfig(byte_width=byte_width),
        heads=IndependentHeadsConfig(),
        next_patch=None,
    )


def token_twin(
    config: ModelConfig,
    vocab_size: int,
    context: int,
    *,
    tables: NgramConfig | None = None,
    head_tables: NgramConfig | None = None,
    head_inner: int | None = None,
) -> ModelConfig:
    """The model of tokens: a position for each, which predicts the next one; embedding and head have their own tables.

    Args:
        config: of the model of bytes.
        vocab_size: V, ids of the tokenizer.
        context: L, tokens read at once.
        tables: of the n-grams of tokens, at the embedding; none by default.
        head_tables: the same before the last norm.
        head_inner: inner width of an MLP that reads state and ``head_tables``; by default there is none.
    Raises:
        ConfigError: the model is one of tokens, or has one head already; ``vocab_size`` or ``context`` is below 1.
    """
    _merger(config)
    heads = LMHeadConfig(num_rows=vocab_size, tables=head_tables)
    return dataclasses.replace(
        config,
        patch=1,
        vocab_size=vocab_size,
        context=context,
        merger=TokenEmbeddingConfig(num_rows=vocab_size, tables=tables),
        heads=heads if head_inner is None else dataclasses.replace(heads, mixed=True, inner=head_inner),
        next_patch=None,
    )


def _merger(config: ModelConfig) -> MergerConfig:
    if not isinstance(config.merger, MergerConfig) or config.patch == 1:
        raise ConfigError(
            f"patch: found {config.patch} with a merger of kind {config.merger.kind!r}, expected a model of bytes with"
            " several heads, which has twins"
        )
    return config.merger

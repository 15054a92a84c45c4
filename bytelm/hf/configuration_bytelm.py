"""The configuration of a model of bytes, as transformers keeps it."""

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from bytelm.model.config import ModelConfig


class BytelmConfig(PretrainedConfig):
    """Configuration of :class:`BytelmForCausalLM`: the tree of its model and the table of its encoding.

    Args:
        model: fields of :class:`bytelm.model.config.ModelConfig`.
        encoding: what :func:`bytelm.encoding.encoding_from_dict` reads; ``config.json`` holds all of it, so that a
            model always knows how its bytes become text.
        kwargs: those of ``PretrainedConfig``.
    Raises:
        ConfigError: ``model`` is no valid tree.
    """

    model_type = "bytelm"

    def __init__(
        self, model: Mapping[str, Any] | None = None, encoding: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)
        self.model = None if model is None else dict(model)
        self.encoding = None if encoding is None else dict(encoding)
        if model is None:  # as transformers makes one, to compare with
            return
        tree = ModelConfig.from_dict(self.model, "model")
        self.vocab_size, self.hidden_size = tree.vocab_size, tree.width
        self.num_hidden_layers, self.num_attention_heads = tree.num_blocks, tree.attention.num_heads
        self.num_key_value_heads, self.head_dim = tree.attention.num_kv_heads, tree.attention.head_width
        self.intermediate_size, self.max_position_embeddings = tree.feedforward.inner, tree.context

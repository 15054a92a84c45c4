"""A model of transformers to measure beside ours: GPT-J on the same weights, or a Llama with the same body."""

import dataclasses
import importlib
from typing import Any

import torch
from torch import nn

from bytelm.hub import LanguageModel
from bytelm.hub.families import GPTJ
from bytelm.hub.import_weights import export_tensors
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ModelConfig, RotaryConfig
from bytelm.model.ends import LMHeadConfig, TokenEmbeddingConfig


def build_rival(transformers: Any, lm: LanguageModel) -> Any:
    """The model of transformers, in evaluation mode, in the type and on the device of ours.

    Raises:
        ImportError: this installation of transformers does not have it.
    """
    settings = gptj_settings(lm.config)
    return build_llama(transformers, lm) if settings is None else build_gptj(transformers, lm.model, settings)


def describe_rival(config: ModelConfig) -> str:
    """What :func:`build_rival` builds beside a model, in a few words."""
    return "a Llama of the same body, random weights" if gptj_settings(config) is None else "GPT-J on the same weights"


def gptj_settings(config: ModelConfig) -> dict[str, Any] | None:
    """The ``config.json`` of GPT-J that describes a model; None where it is no GPT-J."""
    match config.merger, config.heads, config.position:
        case TokenEmbeddingConfig(num_rows=num_rows), LMHeadConfig(tied=tied), RotaryConfig(width=int(turned)):
            settings = {
                "activation_function": "gelu_new",
                "n_embd": config.width,
                "n_layer": config.num_blocks,
                "n_head": config.attention.num_heads,
                "n_positions": config.context,
                "n_inner": config.feedforward.inner,
                "rotary_dim": turned,
                "layer_norm_epsilon": config.norm.eps,
                "vocab_size": num_rows,
                "tie_word_embeddings": tied,
            }
            same = GPTJ.config(settings) == dataclasses.replace(config, vocab_size=num_rows)
            return settings if same else None
    return None


def build_gptj(transformers: Any, model: ByteLM, settings: dict[str, Any]) -> Any:
    """A ``GPTJForCausalLM`` that computes what the model does, on its tensors.

    Queries and keys alone are copies, since the turned rows of each head stand in another order: a sixth of the weights
    of a block. Ids without a token can be emitted, for transformers knows none of those.
    """
    config = transformers.GPTJConfig(**settings, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    with torch.device("meta"):
        rival = transformers.GPTJForCausalLM(config)
    for name, tensor in export_tensors(model, GPTJ):
        owner, _, leaf = name.rpartition(".")
        setattr(rival.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
    rival.tie_weights()
    places = importlib.import_module("transformers.models.gptj.modeling_gptj").create_sinusoidal_positions(
        config.n_positions, config.rotary_dim
    )
    for block in rival.transformer.h:
        block.attn.embed_positions = places.to(model.device)
    return rival.eval()


def build_llama(transformers: Any, lm: LanguageModel) -> Any:
    """A ``LlamaForCausalLM`` with the body of the model, random weights, and no symbol that ends a text.

    Raises:
        ImportError: this installation of transformers has no Llama.
    """
    weight = next(lm.model.parameters())
    rival = new_llama(transformers, lm.config, lm.config.vocab_size)
    return rival.to(device=weight.device, dtype=weight.dtype).eval()


def new_llama(transformers: Any, config: ModelConfig, vocab_size: int) -> Any:
    """A ``LlamaForCausalLM`` with the body of a model, a vocabulary of its own size, and random weights in float32.

    Raises:
        ImportError: this installation of transformers has no Llama.
    """
    settings = transformers.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=config.width,
        intermediate_size=config.feedforward.inner,
        num_hidden_layers=config.num_blocks,
        num_attention_heads=config.attention.num_heads,
        num_key_value_heads=config.attention.num_kv_heads,
        head_dim=config.attention.head_width,
        max_position_embeddings=config.context,
        rms_norm_eps=config.norm.eps,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(settings)

"""A model of tokens as a folder in LLaMA's layout, which :func:`bytelm.load` and transformers read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bytelm.errors import ConfigError
from bytelm.hub.checkpoint import package_version, write_folder
from bytelm.hub.families import LLAMA
from bytelm.hub.import_weights import export_tensors
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ModelConfig, RotaryConfig
from bytelm.model.ends import LMHeadConfig
from bytelm.tokenizer import BPETokenizer, vocabulary_to_dict

FORMAT = "bytelm-tokens"
"""Says in ``config.json`` that the folder is ours to replace."""


def export_llama(folder: Path, model: ByteLM, tokenizer: BPETokenizer, provenance: dict[str, Any]) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``tokenizer.json``; all or nothing.

    Args:
        folder: made where missing; one that was written so before is replaced.
        model: of tokens; what :func:`check_exportable` lets pass.
        tokenizer: of its tokens.
        provenance: plain values about the run, kept in ``config.json``.
    Raises:
        CheckpointError: the folder holds something else, or cannot be written.
    """
    config = {
        "format": FORMAT,
        "bytelm_version": package_version(),
        **llama_config(model.config, tokenizer),
        "torch_dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "provenance": provenance,
    }
    tensors = {name: tensor.clone() for name, tensor in export_tensors(model, LLAMA)}
    write_folder(folder, config, tensors, {"tokenizer.json": vocabulary_to_dict(tokenizer.vocabulary)})


def llama_config(config: ModelConfig, tokenizer: BPETokenizer) -> dict[str, Any]:
    """The ``config.json`` of a model, without what says who wrote it; the inverse of what ``hub/families.py`` reads."""
    head, position = config.heads, config.position
    assert isinstance(head, LMHeadConfig)
    assert isinstance(position, RotaryConfig)
    return {
        "model_type": LLAMA.name,
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": config.width,
        "intermediate_size": config.feedforward.inner,
        "num_hidden_layers": config.num_blocks,
        "num_attention_heads": config.attention.num_heads,
        "num_key_value_heads": config.attention.num_kv_heads,
        "head_dim": config.attention.head_width,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm.eps,
        "rope_theta": position.base,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": head.tied,
        "vocab_size": head.num_rows,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
    }


def has_tables(config: ModelConfig) -> bool:
    """Whether a model has n-gram tables at its merger or in its heads."""
    return any(getattr(part, "tables", None) is not None for part in (config.merger, config.heads))


def check_exportable(config: ModelConfig) -> None:
    """Refuse a model of tokens whose body LLaMA's layout has no words for.

    Raises:
        ConfigError: names the first field that differs.
    """
    attention = config.attention
    fields: Mapping[str, tuple[Any, Any]] = {
        "wiring": (config.wiring, "sequential"),
        "prompt": (config.prompt, "causal"),
        "norm.kind": (config.norm.kind, "rms"),
        "position.kind": (config.position.kind, "rotary"),
        "position.width": (getattr(config.position, "width", None), None),
        "attention.bias": (attention.bias or attention.output_bias, False),
        "attention.scale": (attention.scale, "root"),
        "feedforward.kind": (config.feedforward.kind, "swiglu"),
        "feedforward.bias": (config.feedforward.bias, False),
        "merger.scale": (getattr(config.merger, "scale", 1.0), 1.0),
        "heads.bias": (getattr(config.heads, "bias", False), False),
        "heads.scale": (getattr(config.heads, "scale", 1.0), 1.0),
        "draft_heads": (config.draft_heads, None),
    }
    for name, (found, expected) in fields.items():
        if found != expected:
            raise ConfigError(f"model.config.{name}: found {found!r}, expected {expected!r} for a model of tokens")

"""Checkpoints of other people's models: how their configs and tensor names become ours. Tables, read in both ways."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from bytelm.errors import CheckpointError, ConfigError
from bytelm.model.config import ModelConfig

Layout = Literal["rows", "columns", "pairs"]
"""How a tensor of theirs lies: as ours (outputs by inputs); transposed (inputs by outputs, as ``Conv1D`` has it); as
ours, but with the turned dimensions of each head in neighbouring pairs (2i, 2i + 1) instead of halves."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of ours and the tensors of theirs that are put under each other to make it.

    Attributes:
        ours: name; ``{i}`` is the block.
        theirs: names, each with its layout.
    """

    ours: str
    theirs: tuple[tuple[str, Layout], ...]


@dataclasses.dataclass(frozen=True)
class Family:
    """One layout of checkpoints.

    Attributes:
        name: as results name it.
        entries: of all tensors.
        prefix: what every name of theirs begins with but that of the head; some checkpoints leave it out.
        dropped: ends of names that hold no weights.
        config: from their ``config.json`` to ours.
    """

    name: str
    entries: tuple[Entry, ...]
    prefix: str
    dropped: tuple[str, ...]
    config: Callable[[Mapping[str, Any]], ModelConfig]


def _both(ours: str, theirs: str, layout: Layout = "rows") -> tuple[Entry, Entry]:
    """Weight and bias of a layer or a norm."""
    return (
        Entry(f"{ours}.weight", ((f"{theirs}.weight", layout),)),
        Entry(f"{ours}.bias", ((f"{theirs}.bias", "rows"),)),
    )


def _weight(ours: str, *theirs: str) -> Entry:
    return Entry(f"{ours}.weight", tuple((f"{name}.weight", "rows") for name in theirs))


def _get(config: Mapping[str, Any], name: str, kind: type, default: Any = ...) -> Any:
    """A value of their config, of this type; a whole number does for a float."""
    value = config.get(name, default)
    if value is ...:
        raise CheckpointError(f"config.json: {name} is missing, expected {kind.__name__}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if value is not None and not isinstance(value, kind):
        raise CheckpointError(f"config.json: {name}: found {value!r}, expected {kind.__name__}")
    return value


def _expect(config: Mapping[str, Any], name: str, expected: Collection[Any], default: Any) -> None:
    """Refuse a setting that would change what the model computes and that ours does not know."""
    value = config.get(name, default)
    if value not in expected:
        names = " or ".join(repr(one) for one in expected)
        raise CheckpointError(f"config.json: {name}: found {value!r}, expected {names}")


def _build(config: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.from_dict(config)
    except ConfigError as error:
        raise CheckpointError(f"config.json: makes no model: {error}") from error


def _tokens(num_rows: int, head: dict[str, Any], **embedding: Any) -> dict[str, Any]:
    """Vocabulary, embedding and head; rows without a token are cut off where the tokenizer is known."""
    return {
        "patch": 1,
        "vocab_size": num_rows,
        "merger": {"kind": "token", "num_rows": num_rows, **embedding},
        "heads": {"kind": "lm", "num_rows": num_rows, **head},
    }


_TANH_GELU = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")


def _gptj(config: Mapping[str, Any]) -> ModelConfig:
    _expect(config, "activation_function", _TANH_GELU, "gelu_new")
    width, heads = _get(config, "n_embd", int), _get(config, "n_head", int)
    turned = _get(config, "rotary_dim", int, 64)
    return _build(
        {
            "width": width,
            "num_blocks": _get(config, "n_layer", int),
            "context": _get(config, "n_positions", int),
            "wiring": "parallel",
            "norm": {"kind": "layer", "eps": _get(config, "layer_norm_epsilon", float, 1e-5)},
            "position": {"kind": "rotary", "width": turned},
            "attention": {"num_heads": heads, "num_kv_heads": heads, "head_width": width // heads},
            "feedforward": {"kind": "gelu", "inner": _get(config, "n_inner", int, None) or 4 * width, "bias": True},
            **_tokens(_get(config, "vocab_size", int), {"bias": True, "tied": bool(config.get("tie_word_embeddings"))}),
        }
    )


def _llama(config: Mapping[str, Any]) -> ModelConfig:
    _expect(config, "hidden_act", ("silu", "swish"), "silu")
    _expect(config, "attention_bias", (False,), False)
    _expect(config, "mlp_bias", (False,), False)
    _expect(config, "rope_scaling", (None,), None)
    ropes = config.get("rope_parameters") or {}
    _expect(ropes, "rope_type", ("default",), "default")
    width, heads = _get(config, "hidden_size", int), _get(config, "num_attention_heads", int)
    base = _get(ropes, "rope_theta", float, None) or _get(config, "rope_theta", float, 10_000.0)
    return _build(
        {
            "width": width,
            "num_blocks": _get(config, "num_hidden_layers", int),
            "context": _get(config, "max_position_embeddings", int),
            "norm": {"kind": "rms", "eps": _get(config, "rms_norm_eps", float, 1e-6)},
            "position": {"kind": "rotary", "base": base},
            "attention": {
                "num_heads": heads,
                "num_kv_heads": _get(config, "num_key_value_heads", int, None) or heads,
                "head_width": _get(config, "head_dim", int, None) or width // heads,
            },
            "feedforward": {"kind": "swiglu", "inner": _get(config, "intermediate_size", int)},
            **_tokens(_get(config, "vocab_size", int), {"tied": bool(config.get("tie_word_embeddings", False))}),
        }
    )


def _gpt2(config: Mapping[str, Any]) -> ModelConfig:
    _expect(config, "activation_function", _TANH_GELU, "gelu_new")
    _expect(config, "scale_attn_weights", (True,), True)
    _expect(config, "scale_attn_by_inverse_layer_idx", (False,), False)
    return _build(
        {
            **_gpt2_body(config),
            "position": {"kind": "learned"},
            "feedforward": {"kind": "gelu", "inner": _inner(config), "bias": True},
            **_tokens(_get(config, "vocab_size", int), {"tied": bool(config.get("tie_word_embeddings", True))}),
        }
    )


def _gpt2_body(config: Mapping[str, Any]) -> dict[str, Any]:
    width, heads = _get(config, "n_embd", int), _get(config, "n_head", int)
    attention = {"num_heads": heads, "num_kv_heads": heads, "head_width": width // heads}
    return {
        "width": width,
        "num_blocks": _get(config, "n_layer", int),
        "context": _get(config, "n_positions", int),
        "norm": {"kind": "layer", "eps": _get(config, "layer_norm_epsilon", float, 1e-5)},
        "attention": {**attention, "bias": True, "output_bias": True},
    }


def _inner(config: Mapping[str, Any]) -> int:
    inner: int = _get(config, "n_inner", int, None) or 4 * _get(config, "n_embd", int)
    return inner


def _btlm(config: Mapping[str, Any]) -> ModelConfig:
    _expect(config, "activation_function", ("swiglu",), None)
    _expect(config, "position_embedding_type", ("alibi",), None)
    _expect(config, "scale_attn_weights", (True,), True)
    _expect(config, "scale_attn_by_inverse_layer_idx", (False,), False)
    if "mup_width_scale" in config:
        width_scale = _get(config, "mup_width_scale", float)
        output = _get(config, "mup_output_alpha", float) * width_scale
        embedding = _get(config, "mup_embeddings_scale", float)
        by_width = _get(config, "mup_scale_qk_dot_by_d", bool)
    else:
        output = _get(config, "output_logits_scale", float)
        embedding = _get(config, "embeddings_scale", float)
        by_width = _get(config, "scale_qk_dot_by_d", bool)
    body = _gpt2_body(config)
    body["attention"]["scale"] = "width" if by_width else "root"
    num_rows = _get(config, "vocab_size", int)
    tied = bool(config.get("tie_word_embeddings", True))
    return _build(
        {
            **body,
            "position": _alibi(config),
            "feedforward": {"kind": "swiglu", "inner": _inner(config), "bias": True},
            **_tokens(num_rows, {"tied": tied, "scale": output}, scale=embedding),
        }
    )


def _alibi(config: Mapping[str, Any]) -> dict[str, Any]:
    """Slopes, shrunk as ``alibi_scaling`` says for texts longer than in training.

    With a ``factor`` they are shrunk by it everywhere. With ``train_seq_len`` alone the published code of this family
    divides them by the present number of keys over it; there, a long prompt read at once gives its early positions the
    ratio of the whole. Ours is the ratio of each position, which is what that code does when it reads one token after
    another; so what follows a position does not change it.
    """
    scaling = config.get("alibi_scaling")
    if scaling is None:
        return {"kind": "alibi"}
    if not isinstance(scaling, Mapping) or scaling.get("type", "linear") != "linear":
        raise CheckpointError(f"config.json: alibi_scaling: found {scaling!r}, expected a mapping of type 'linear'")
    factor, trained = _get(scaling, "factor", float, None), _get(scaling, "train_seq_len", int, None)
    given = [number for number in (factor, trained) if number is not None]
    if not given or min(given) < 1:
        raise CheckpointError(
            f"config.json: alibi_scaling: found {dict(scaling)!r}, expected a factor or a train_seq_len of at least 1"
        )
    return {"kind": "alibi", "shrink": factor} if factor is not None else {"kind": "alibi", "trained": trained}


GPTJ = Family(
    "gptj",
    (
        _weight("merger.embedding", "transformer.wte"),
        *_both("blocks.{i}.norm", "transformer.h.{i}.ln_1"),
        Entry(
            "blocks.{i}.attention.query_key_value.weight",
            (
                ("transformer.h.{i}.attn.q_proj.weight", "pairs"),
                ("transformer.h.{i}.attn.k_proj.weight", "pairs"),
                ("transformer.h.{i}.attn.v_proj.weight", "rows"),
            ),
        ),
        _weight("blocks.{i}.attention.output", "transformer.h.{i}.attn.out_proj"),
        *_both("blocks.{i}.feedforward.up", "transformer.h.{i}.mlp.fc_in"),
        *_both("blocks.{i}.feedforward.down", "transformer.h.{i}.mlp.fc_out"),
        *_both("norm", "transformer.ln_f"),
        *_both("heads.unembedding", "lm_head"),
    ),
    "transformer.",
    (".attn.bias", ".attn.masked_bias"),
    _gptj,
)

LLAMA = Family(
    "llama",
    (
        _weight("merger.embedding", "model.embed_tokens"),
        _weight("blocks.{i}.attention_norm", "model.layers.{i}.input_layernorm"),
        _weight(
            "blocks.{i}.attention.query_key_value",
            *(f"model.layers.{{i}}.self_attn.{part}_proj" for part in ("q", "k", "v")),
        ),
        _weight("blocks.{i}.attention.output", "model.layers.{i}.self_attn.o_proj"),
        _weight("blocks.{i}.feedforward_norm", "model.layers.{i}.post_attention_layernorm"),
        _weight("blocks.{i}.feedforward.gate_up", "model.layers.{i}.mlp.gate_proj", "model.layers.{i}.mlp.up_proj"),
        _weight("blocks.{i}.feedforward.down", "model.layers.{i}.mlp.down_proj"),
        _weight("norm", "model.norm"),
        _weight("heads.unembedding", "lm_head"),
    ),
    "model.",
    (".rotary_emb.inv_freq",),
    _llama,
)

_GPT2_SHARED = (
    _weight("merger.embedding", "transformer.wte"),
    *_both("blocks.{i}.attention_norm", "transformer.h.{i}.ln_1"),
    *_both("blocks.{i}.attention.query_key_value", "transformer.h.{i}.attn.c_attn", "columns"),
    *_both("blocks.{i}.attention.output", "transformer.h.{i}.attn.c_proj", "columns"),
    *_both("blocks.{i}.feedforward_norm", "transformer.h.{i}.ln_2"),
    *_both("blocks.{i}.feedforward.down", "transformer.h.{i}.mlp.c_proj", "columns"),
    *_both("norm", "transformer.ln_f"),
    _weight("heads.unembedding", "lm_head"),
)

_GPT2 = Family(
    "gpt2",
    (
        *_GPT2_SHARED,
        _weight("merger.positions", "transformer.wpe"),
        *_both("blocks.{i}.feedforward.up", "transformer.h.{i}.mlp.c_fc", "columns"),
    ),
    "transformer.",
    (".attn.bias", ".attn.masked_bias"),
    _gpt2,
)

_GATE_UP = ("transformer.h.{i}.mlp.c_fc2", "transformer.h.{i}.mlp.c_fc")

_BTLM = Family(
    "btlm",
    (
        *_GPT2_SHARED,
        Entry("blocks.{i}.feedforward.gate_up.weight", tuple((f"{name}.weight", "columns") for name in _GATE_UP)),
        Entry("blocks.{i}.feedforward.gate_up.bias", tuple((f"{name}.bias", "rows") for name in _GATE_UP)),
    ),
    "transformer.",
    (".attn.bias", ".attn.masked_bias", "relative_pe.slopes"),
    _btlm,
)

_MUP = ("mup_width_scale", "output_logits_scale")


def recognise(config: Mapping[str, Any], names: Collection[str]) -> Family:
    """The family of a checkpoint, from what its ``config.json`` says and which tensors it has.

    Raises:
        CheckpointError: none of those that are known.
    """
    kind = config.get("model_type")
    scaled = any(name in config for name in _MUP)

    def has(end: str) -> bool:
        return any(name.endswith(end) for name in names)

    match kind:
        case "gptj" if has("h.0.attn.q_proj.weight"):
            return GPTJ
        case "llama" if has("layers.0.self_attn.q_proj.weight"):
            return LLAMA
        case "gpt2" if has("h.0.attn.c_attn.weight") and not has("h.0.mlp.c_fc2.weight"):
            return _GPT2
        case "btlm" | "gpt_jx" if scaled and has("h.0.mlp.c_fc2.weight"):
            return _BTLM
    raise CheckpointError(
        f"config.json: model_type {kind!r} with {_sample(names)}, expected gptj, llama, gpt2, or btlm or gpt_jx with"
        f" {' or '.join(_MUP)}, and their tensors"
    )


def _sample(names: Collection[str]) -> str:
    first = sorted(names)[:1]
    return f"tensors such as {first[0]}" if first else "no tensors"


def num_pairs(config: ModelConfig) -> int:
    """Turned dimensions of each head, for the layout ``pairs``."""
    width = getattr(config.position, "width", None)
    return int(width or config.attention.head_width)


def is_square_mask(shape: Collection[int]) -> bool:
    """Whether a tensor has the shape of a mask buffer of old checkpoints, (1, 1, L, L)."""
    sizes = tuple(shape)
    return len(sizes) == 4 and sizes[:2] == (1, 1) and math.prod(sizes) == sizes[2] ** 2

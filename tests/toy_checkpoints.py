"""Toy checkpoints of the GPT-J family and its kin, in the formats of the published files.

Token ids 0..255 stand for bytes and 256 ends a text. Weights are large enough that attention is far from uniform and
logits are of order 1, so that a wrong angle, scale or layout shows. ``changes`` replace fields of config.json.
"""

import json
from pathlib import Path

import slow_families
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM

TOKENS = 257
"""Ids that a text can have."""

ROWS = 272
"""Rows of GPT-J's embeddings: more than there are tokens, as 50,400 of 50,257."""


def fill(parameters, width, seed):
    """Draw values in place: matrices N(0, 1 / width), biases N(0, 0.1), gains of norms in 0.5..1.5."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in parameters:
            if parameter.dim() > 1:
                parameter.normal_(0, (1 / width) ** 0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1**0.5, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)


def save(folder, state, config, *, safe, shards=False):
    """Write config.json and one file of weights, or (``shards``) several with an index; return the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    num_bytes = sum(tensor.nbytes for tensor in state.values())
    save_torch_state_dict(
        state,
        folder,
        filename_pattern="model{suffix}.safetensors" if safe else "pytorch_model{suffix}.bin",
        max_shard_size=num_bytes // 3 if shards else 2 * num_bytes,
        safe_serialization=safe,
    )
    return folder


def read(folder):
    """The weights of a folder as float64 arrays, whatever the files, and its config.json."""
    folder, weights = Path(folder), {}
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        part = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        weights.update({name: tensor.double().numpy() for name, tensor in part.items()})
    return weights, json.loads((folder / "config.json").read_text())


def _hf_config(model, dtype):
    return {**model.config.to_dict(), "architectures": [type(model).__name__], "dtype": str(dtype).split(".")[1]}


def write_gptj(
    folder, *, legacy="none", safe=True, shards=False, dtype=torch.float32, seed=0, tokens=TOKENS, **changes
):
    """GPT-J, whose rows without a token (``tokens`` and up) have high logits: what forgets to mask them emits them.

    ``legacy``: ``causal`` adds the old mask buffers (bool; in a .bin all layers share one storage), ``ones`` those of
    GPT-JT, a prefix model (uint8, all ones, one storage per layer).
    """
    sizes = {"vocab_size": ROWS, "n_positions": 64, "n_embd": 48, "n_layer": 2, "n_head": 4, "rotary_dim": 8}
    config = GPTJConfig(**{**sizes, "bos_token_id": tokens - 1, "eos_token_id": tokens - 1, **changes})
    model = GPTJForCausalLM(config)
    fill(model.named_parameters(), config.n_embd, seed)
    model.lm_head.bias.data[tokens:] += 4
    state = dict(model.to(dtype).state_dict())
    num = config.n_positions
    mask = torch.ones(1, 1, num, num, dtype=torch.bool).tril()
    for i in range(config.n_layer if legacy != "none" else 0):
        name = f"transformer.h.{i}.attn"
        state[f"{name}.masked_bias"] = torch.tensor(float("-inf") if dtype == torch.float16 else -1e9, dtype=dtype)
        if legacy == "ones":
            state[f"{name}.bias"] = torch.ones(1, 1, num, num, dtype=torch.uint8)
        else:
            state[f"{name}.bias"] = mask.clone() if safe else mask
    return save(folder, state, _hf_config(model, dtype), safe=safe, shards=shards)


def write_llama(
    folder, *, tied=False, old=False, safe=True, shards=False, dtype=torch.float32, seed=0, tokens=TOKENS, **changes
):
    """LLaMA with two query heads per key/value head.

    ``tied``: no ``lm_head.weight``. ``old``: ``rope_theta`` and ``torch_dtype`` as before transformers 5, and the
    ``inv_freq`` buffers of the first files.
    """
    sizes = {
        "vocab_size": tokens,
        "hidden_size": 48,
        "intermediate_size": 68,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rope_theta": 5000.0,
        "bos_token_id": tokens - 1,
        "eos_token_id": tokens - 1,
        "tie_word_embeddings": tied,
    }
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **changes}))
    fill(model.named_parameters(), model.config.hidden_size, seed)
    state, config = dict(model.to(dtype).state_dict()), _hf_config(model, dtype)
    if tied:
        del state["lm_head.weight"]
    if old:
        rope = config.pop("rope_parameters")
        config |= {"rope_theta": rope["rope_theta"], "rope_scaling": None, "torch_dtype": config.pop("dtype")}
        for i in range(config["num_hidden_layers"]):
            inv_freq = rope["rope_theta"] ** (-torch.arange(0, config["head_dim"], 2) / config["head_dim"])
            state[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = inv_freq.clone()
    return save(folder, state, config, safe=safe, shards=shards)


def write_gpt2(
    folder, *, published=False, safe=True, shards=False, dtype=torch.float32, seed=0, tokens=TOKENS, **changes
):
    """GPT-2, tied. ``published``: names without ``transformer.`` and float masks, as in the first files."""
    sizes = {"vocab_size": tokens, "n_positions": 64, "n_embd": 48, "n_layer": 2, "n_head": 4}
    config = GPT2Config(**{**sizes, "bos_token_id": tokens - 1, "eos_token_id": tokens - 1, **changes})
    model = GPT2LMHeadModel(config)
    fill(model.named_parameters(), config.n_embd, seed)
    state = dict(model.to(dtype).state_dict())
    if published or safe:
        del state["lm_head.weight"]
    if published:
        state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
        for i in range(config.n_layer):
            state[f"h.{i}.attn.bias"] = torch.ones(1, 1, config.n_positions, config.n_positions).tril()
    return save(folder, state, _hf_config(model, dtype), safe=safe, shards=shards)


_BTLM = {
    "activation_function": "swiglu",
    "alibi_scaling": None,
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "initializer_range": 0.073,
    "layer_norm_epsilon": 1e-05,
    "n_embd": 40,
    "n_head": 4,
    "n_inner": 68,
    "n_layer": 2,
    "n_positions": 64,
    "position_embedding_type": "alibi",
    "reorder_and_upcast_attn": False,
    "resid_pdrop": 0.0,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "use_cache": True,
}

_BTLM_SCALES = {
    "mup": {
        "mup_embeddings_scale": 3.5,
        "mup_output_alpha": 2.25,
        "mup_width_scale": 0.4,
        "mup_scale_qk_dot_by_d": True,
    },
    "old": {"embeddings_scale": 3.5, "output_logits_scale": 0.9, "width_scale": 0.4, "scale_qk_dot_by_d": True},
}

_BTLM_NAMES = {
    "btlm": ("cerebras/btlm-3b-8k-base", "BTLMLMHeadModel"),
    "gpt_jx": ("cerebras/btlm-3b-8k-base", "GPTJXForCausalLM"),
}


def write_btlm(
    folder,
    *,
    spelling="mup",
    model_type="btlm",
    safe=True,
    shards=False,
    lm_head=False,
    masks=False,
    dtype=torch.float32,
    seed=0,
    tokens=TOKENS,
    **changes,
):
    """BTLM or GPT-JX (``model_type`` gpt_jx), with both ``spelling`` of the scales; not in transformers.

    ``lm_head``: the tied head is in the file too. ``masks``: uint8 mask buffers, as in the first upload.
    """
    origin, architecture = _BTLM_NAMES[model_type]
    config = {
        "_name_or_path": origin,
        "architectures": [architecture],
        "model_type": model_type,
        "auto_map": {"AutoModelForCausalLM": f"modeling_{model_type}.{architecture}"},
        "bos_token_id": tokens - 1,
        "eos_token_id": tokens - 1,
        "torch_dtype": str(dtype).split(".")[1],
        "vocab_size": tokens,
        **_BTLM,
        **_BTLM_SCALES[spelling],
        **changes,
    }
    width, inner, num = config["n_embd"], config["n_inner"], config["n_positions"]
    # Conv1D: a weight is (in, out).
    linears = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, inner),
        "mlp.c_fc2": (width, inner),
        "mlp.c_proj": (inner, width),
    }
    state = {"transformer.wte.weight": torch.empty(config["vocab_size"], width)}
    for i in range(config["n_layer"]):
        for part, shape in {"ln_1": (width,), "ln_2": (width,), **linears}.items():
            state[f"transformer.h.{i}.{part}.weight"] = torch.empty(shape)
            state[f"transformer.h.{i}.{part}.bias"] = torch.empty(shape[-1])
    state["transformer.ln_f.weight"], state["transformer.ln_f.bias"] = torch.empty(width), torch.empty(width)
    fill(state.items(), width, seed)
    for i in range(config["n_layer"]):
        # q.k is divided by E, not by sqrt(E): larger q and k make up for it.
        state[f"transformer.h.{i}.attn.c_attn.weight"] *= (width / config["n_head"]) ** 0.25
    state["transformer.relative_pe.slopes"] = torch.tensor(slow_families.alibi_slopes(config["n_head"]))[:, None]
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    if lm_head:
        embedding = state["transformer.wte.weight"]
        state["lm_head.weight"] = embedding.clone() if safe else embedding
    for i in range(config["n_layer"] if masks else 0):
        state[f"transformer.h.{i}.attn.bias"] = torch.ones(1, 1, num, num, dtype=torch.uint8).tril()
    return save(folder, state, config, safe=safe, shards=shards)


def write_impostor(folder, *, model_type="SabiYarn"):
    """Another architecture that calls itself GPTJXForCausalLM and has no scales: to be refused, gpt_jx or not."""
    config = {
        "architectures": ["GPTJXForCausalLM"],
        "model_type": model_type,
        "bias": False,
        "block_size": 64,
        "n_embd": 48,
        "n_heads": 4,
        "n_layer": 1,
        "vocab_size": TOKENS,
    }
    state = {"transformer.wte.weight": torch.empty(TOKENS, 48), "transformer.ln_f.weight": torch.empty(48)}
    name = "transformer.h.0"
    for part, shape in {"ln_1": (48,), "ln_2": (48,), "attn.c_attn": (144, 48), "j.c_fc": (96, 48)}.items():
        state[f"{name}.{part}.weight"] = torch.empty(shape)
    fill(state.items(), 48, 0)
    return save(folder, state, config, safe=True)

"""The GPT-J family, GPT-2 and LLaMA once more, from their formulas: numpy float64, one sequence, no cache.

Each function takes the arrays of a checkpoint under their published names, its config.json as a dict, and ids (T,); it
returns logits (T, V). Arrays that are not weights (causal masks, slopes) are ignored.
"""

import math

import numpy as np


def layer_norm(x, w, name, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def rms_norm(x, w, name, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * w[f"{name}.weight"]


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def conv1d(x, w, name):
    """GPT-2's linear layer, whose weight is (in, out)."""
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def split_heads(x, num_heads):
    """(T, H*E) -> (H, T, E)."""
    return x.reshape(len(x), num_heads, -1).swapaxes(0, 1)


def turns(num, rotary_dim, base):
    """Unit complex numbers (T, rotary_dim / 2) that rotate pair i at position t by t * base^(-2i / rotary_dim)."""
    return np.exp(1j * np.outer(np.arange(num), base ** (-np.arange(0, rotary_dim, 2) / rotary_dim)))


def turn_pairs(x, rotary_dim, base=10000.0):
    """Rotate dimensions (2i, 2i + 1) of the first ``rotary_dim``: GPT-J's interleaved rotary. x (H, T, E)."""
    z = (x[..., 0:rotary_dim:2] + 1j * x[..., 1:rotary_dim:2]) * turns(x.shape[1], rotary_dim, base)
    out = x.copy()
    out[..., 0:rotary_dim:2], out[..., 1:rotary_dim:2] = z.real, z.imag
    return out


def turn_halves(x, rotary_dim, base=10000.0):
    """Rotate dimensions (i, i + rotary_dim / 2) of the first ``rotary_dim``: LLaMA's rotary. x (H, T, E)."""
    half = rotary_dim // 2
    z = (x[..., :half] + 1j * x[..., half:rotary_dim]) * turns(x.shape[1], rotary_dim, base)
    return np.concatenate((z.real, z.imag, x[..., rotary_dim:]), -1)


def prefix_mask(num, prefix_len=0):
    """allowed (T, T): position i sees j <= i, and the whole prefix."""
    i, j = np.arange(num)[:, None], np.arange(num)
    return (j <= i) | (j < prefix_len)


def attend(q, k, v, divisor, allowed, bias=0.0):
    """softmax(q.k / divisor + bias) v over the allowed keys; q, k, v (H, T, E) -> (T, H*E)."""
    scores = np.where(allowed, q @ k.swapaxes(1, 2) / divisor + bias, -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    return (share / share.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(allowed), -1)


def gptj_logits(weights, config, ids, prefix_len=0):
    """GPT-J and, with a prefix, GPT-JT: x + attention(n) + mlp(n) for one n = ln_1(x)."""
    w, num_heads, eps = weights, config["n_head"], config["layer_norm_epsilon"]
    x = w["transformer.wte.weight"][ids]
    for i in range(config["n_layer"]):
        name = f"transformer.h.{i}"
        inner = layer_norm(x, w, f"{name}.ln_1", eps)
        q, k, v = (split_heads(inner @ w[f"{name}.attn.{part}_proj.weight"].T, num_heads) for part in "qkv")
        q, k = turn_pairs(q, config["rotary_dim"]), turn_pairs(k, config["rotary_dim"])
        y = attend(q, k, v, math.sqrt(q.shape[-1]), prefix_mask(len(ids), prefix_len))
        hidden = gelu_tanh(inner @ w[f"{name}.mlp.fc_in.weight"].T + w[f"{name}.mlp.fc_in.bias"])
        mlp = hidden @ w[f"{name}.mlp.fc_out.weight"].T + w[f"{name}.mlp.fc_out.bias"]
        x = x + y @ w[f"{name}.attn.out_proj.weight"].T + mlp
    return layer_norm(x, w, "transformer.ln_f", eps) @ w["lm_head.weight"].T + w["lm_head.bias"]


def alibi_slopes(num_heads):
    """2^(-8(h+1)/H) (H,) for a power of two; else those of the power below, then every other one of twice that."""
    below = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (h + 1) / below) for h in range(below)]
    return np.array(slopes + [2 ** (-8 * (h + 0.5) / below) for h in range(num_heads - below)])


def btlm_scales(config):
    """Factor of the embeddings, factor of the logits, and power of the head width that divides q.k."""
    if "mup_embeddings_scale" in config:
        output = config["mup_output_alpha"] * config["mup_width_scale"]
        return config["mup_embeddings_scale"], output, 1.0 if config["mup_scale_qk_dot_by_d"] else 0.5
    return config["embeddings_scale"], config["output_logits_scale"], 1.0 if config["scale_qk_dot_by_d"] else 0.5


def swiglu(linear, gate):
    return linear * silu(gate)


def btlm_logits(weights, config, ids, alibi_factor=1.0):
    """BTLM and GPT-JX: GPT-2's block with SwiGLU, ALiBi (slopes divided by ``alibi_factor``) and muP scales."""
    w, eps = weights, config["layer_norm_epsilon"]
    embeddings_scale, output_scale, power = btlm_scales(config)
    distance = np.abs(np.arange(len(ids))[:, None] - np.arange(len(ids)))
    bias = -alibi_slopes(config["n_head"])[:, None, None] / alibi_factor * distance
    x = w["transformer.wte.weight"][ids] * embeddings_scale
    for i in range(config["n_layer"]):
        name = f"transformer.h.{i}"
        mixed = conv1d(layer_norm(x, w, f"{name}.ln_1", eps), w, f"{name}.attn.c_attn")
        q, k, v = (split_heads(part, config["n_head"]) for part in np.split(mixed, 3, -1))
        y = attend(q, k, v, q.shape[-1] ** power, prefix_mask(len(ids)), bias)
        x = x + conv1d(y, w, f"{name}.attn.c_proj")
        inner = layer_norm(x, w, f"{name}.ln_2", eps)
        hidden = swiglu(conv1d(inner, w, f"{name}.mlp.c_fc"), conv1d(inner, w, f"{name}.mlp.c_fc2"))
        x = x + conv1d(hidden, w, f"{name}.mlp.c_proj")
    return layer_norm(x, w, "transformer.ln_f", eps) @ w["transformer.wte.weight"].T * output_scale


def gpt2_logits(weights, config, ids):
    """GPT-2, under the names of transformers (``transformer.h.0...``) or of the first files (``h.0...``)."""
    w, eps = {name.removeprefix("transformer."): array for name, array in weights.items()}, config["layer_norm_epsilon"]
    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
    for i in range(config["n_layer"]):
        mixed = conv1d(layer_norm(x, w, f"h.{i}.ln_1", eps), w, f"h.{i}.attn.c_attn")
        q, k, v = (split_heads(part, config["n_head"]) for part in np.split(mixed, 3, -1))
        y = attend(q, k, v, math.sqrt(q.shape[-1]), prefix_mask(len(ids)))
        x = x + conv1d(y, w, f"h.{i}.attn.c_proj")
        inner = layer_norm(x, w, f"h.{i}.ln_2", eps)
        x = x + conv1d(gelu_tanh(conv1d(inner, w, f"h.{i}.mlp.c_fc")), w, f"h.{i}.mlp.c_proj")
    return layer_norm(x, w, "ln_f", eps) @ w["wte.weight"].T


def rope_theta(config):
    """Base of the rotary, as transformers 5 writes it or as before."""
    return {"rope_theta": 10000.0, **config, **(config.get("rope_parameters") or {})}["rope_theta"]


def share_heads(x, group):
    """Key/value head g for query heads g * group and the ``group - 1`` after it: (G, T, E) -> (H, T, E)."""
    return np.repeat(x, group, 0)


def llama_logits(weights, config, ids):
    """LLaMA with grouped queries; a file without ``lm_head.weight`` is tied."""
    w, eps = weights, config["rms_norm_eps"]
    num_heads, num_kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    x = w["model.embed_tokens.weight"][ids]
    for i in range(config["num_hidden_layers"]):
        name = f"model.layers.{i}"
        inner = rms_norm(x, w, f"{name}.input_layernorm", eps)
        q, k, v = (inner @ w[f"{name}.self_attn.{part}_proj.weight"].T for part in "qkv")
        q, k, v = split_heads(q, num_heads), split_heads(k, num_kv_heads), split_heads(v, num_kv_heads)
        width = q.shape[-1]
        q, k = turn_halves(q, width, rope_theta(config)), turn_halves(k, width, rope_theta(config))
        k, v = share_heads(k, num_heads // num_kv_heads), share_heads(v, num_heads // num_kv_heads)
        y = attend(q, k, v, math.sqrt(width), prefix_mask(len(ids)))
        x = x + y @ w[f"{name}.self_attn.o_proj.weight"].T
        inner = rms_norm(x, w, f"{name}.post_attention_layernorm", eps)
        gate, up = (inner @ w[f"{name}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + (silu(gate) * up) @ w[f"{name}.mlp.down_proj.weight"].T
    unembedding = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return rms_norm(x, w, "model.norm", eps) @ unembedding.T

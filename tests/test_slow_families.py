"""The references of the model families against transformers, against numbers worked out by hand, and broken."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import slow_families
import torch
import toy_checkpoints
from slow_families import alibi_slopes, btlm_logits, btlm_scales, gptj_logits
from toy_checkpoints import ROWS, TOKENS, read, write_btlm, write_gpt2, write_gptj, write_impostor, write_llama
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

T = 24
IDS = np.random.default_rng(5).integers(0, TOKENS, T)
TOLERANCE = 1e-5

FAMILIES = {
    "gptj": (write_gptj, slow_families.gptj_logits),
    "gpt2": (write_gpt2, slow_families.gpt2_logits),
    "llama": (write_llama, slow_families.llama_logits),
    "btlm": (write_btlm, slow_families.btlm_logits),
}


def load(folder):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )


@torch.inference_mode()
def run(model, ids=IDS, **inputs):
    return model(torch.as_tensor(ids)[None], **inputs)


def difference(logits, expected):
    """Largest difference of the ``logits`` (1, T, V) of a torch model, or of an array (T, V)."""
    logits = logits[0].double().numpy() if isinstance(logits, torch.Tensor) else logits
    return np.abs(logits - expected).max()


def additive(allowed):
    """0 where allowed, the lowest number elsewhere: (1, 1, T, T)."""
    mask = torch.full(allowed.shape, torch.finfo(torch.float32).min)
    return mask.masked_fill(torch.from_numpy(allowed), 0)[None, None]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gptj", {}),
        ("gptj", {"legacy": "ones", "dtype": torch.float16}),
        ("gptj", {"legacy": "causal", "safe": False, "shards": True, "seed": 1}),
        ("gptj", {"n_inner": 100, "rotary_dim": 4}),
        ("gpt2", {}),
        ("gpt2", {"published": True, "shards": True, "n_head": 3, "seed": 1}),
        ("gpt2", {"safe": False, "dtype": torch.bfloat16}),
        ("llama", {}),
        ("llama", {"tied": True, "seed": 1}),
        ("llama", {"old": True, "safe": False, "num_key_value_heads": 1, "rope_theta": 10000.0}),
        ("llama", {"num_key_value_heads": 4, "head_dim": 16}),
    ],
)
def test_transformers_gives_the_same_logits(tmp_path, family, options):
    write, logits = FAMILIES[family]
    weights, config = read(write(tmp_path, **options))
    assert difference(run(load(tmp_path)).logits, logits(weights, config, IDS)) < TOLERANCE


@pytest.mark.parametrize("prefix_len", [0, 1, 9, T])
def test_prefix_mask_is_that_of_transformers_with_a_float_mask(tmp_path, prefix_len):
    weights, config = read(write_gptj(tmp_path, legacy="ones"))
    i, j = np.indices((T, T))
    mask = additive((j <= i) | (j < prefix_len))
    assert difference(
        run(load(tmp_path), attention_mask=mask).logits, gptj_logits(weights, config, IDS, prefix_len)
    ) < (TOLERANCE)


@pytest.mark.parametrize("prefix_len", [2, 9])
def test_steps_after_a_prefill_that_sees_its_whole_prompt_are_the_one_pass_mask(tmp_path, prefix_len):
    weights, config = read(write_gptj(tmp_path, legacy="ones"))
    model = load(tmp_path)
    out = run(model, IDS[:prefix_len], attention_mask=torch.zeros(1, 1, prefix_len, prefix_len), use_cache=True)
    parts = [out.logits]
    for t in range(prefix_len, T):
        out = run(model, IDS[t : t + 1], past_key_values=out.past_key_values, use_cache=True)
        parts.append(out.logits)
    expected = gptj_logits(weights, config, IDS, prefix_len)
    assert difference(torch.cat(parts, 1), expected) < TOLERANCE
    assert difference(torch.cat(parts, 1), gptj_logits(weights, config, IDS)) > 0.1


def test_a_later_symbol_moves_the_prefix_and_nothing_else_before_it(tmp_path):
    weights, config = read(write_gptj(tmp_path, legacy="ones"))
    changed = IDS.copy()
    changed[12] = (changed[12] + 1) % TOKENS

    def moved(prefix_len):
        before, after = (gptj_logits(weights, config, ids, prefix_len) for ids in (IDS, changed))
        return np.abs(before - after).max(-1) > 0

    assert not moved(0)[:12].any()
    assert not moved(12)[:12].any()
    assert moved(13)[:12].all()
    # All ones over prompt and continuation: every position sees the future.
    assert moved(T)[:12].all()


class SwiGLU(torch.nn.Module):
    """An MLP to put into transformers' GPT-2."""

    def __init__(self, weights, name):
        super().__init__()
        self.parts = [
            torch.from_numpy(weights[f"{name}.{part}.{kind}"]).float()
            for part in ("c_fc", "c_fc2", "c_proj")
            for kind in ("weight", "bias")
        ]

    def forward(self, x):
        linear, linear_bias, gate, gate_bias, down, down_bias = self.parts
        hidden = (x @ linear + linear_bias) * torch.nn.functional.silu(x @ gate + gate_bias)
        return hidden @ down + down_bias


def btlm_by_transformers(weights, config, scales, slopes):
    """Logits of transformers' GPT-2 with the scales folded into its weights and ALiBi in its mask: (1, T, V)."""
    embeddings_scale, output_scale, divide_by_width = scales
    width, num_heads = config["n_embd"], config["n_head"]
    shape = {name: config[name] for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")}
    model = GPT2LMHeadModel(GPT2Config(**shape, attn_implementation="eager", tie_word_embeddings=False)).eval()
    state = {name: torch.from_numpy(array).float() for name, array in weights.items() if "slopes" not in name}
    state["lm_head.weight"] = state["transformer.wte.weight"] * output_scale
    state["transformer.wte.weight"] = state["transformer.wte.weight"] * embeddings_scale
    state["transformer.wpe.weight"] = torch.zeros(config["n_positions"], width)
    for i, block in enumerate(model.transformer.h):
        block.mlp = SwiGLU(weights, f"transformer.h.{i}.mlp")
        if divide_by_width:  # GPT-2 divides by sqrt(E), so q brings the other sqrt(E).
            for kind in ("weight", "bias"):
                state[f"transformer.h.{i}.attn.c_attn.{kind}"][..., :width] /= math.sqrt(width // num_heads)
    wanted = model.state_dict().keys()
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted}, strict=True)
    # BLOOM's form: slope * j, which differs from -slope * (i - j) by a number per row.
    bias = torch.tensor(slopes, dtype=torch.float32)[:, None, None] * torch.arange(T)
    return run(model, attention_mask=additive(np.tri(T, dtype=bool)) + bias).logits


@pytest.mark.parametrize("spelling", ["mup", "old"])
@pytest.mark.parametrize("by_width", [True, False])
@pytest.mark.parametrize("num_heads", [4, 5])
def test_btlm_is_gpt2_of_transformers_with_its_changes(tmp_path, spelling, by_width, num_heads):
    flag = {"mup": "mup_scale_qk_dot_by_d", "old": "scale_qk_dot_by_d"}[spelling]
    weights, config = read(write_btlm(tmp_path, spelling=spelling, n_head=num_heads, **{flag: by_width}))
    slopes = [1 / 4, 1 / 16, 1 / 64, 1 / 256] + [1 / 2] * (num_heads - 4)
    for factor in (1.0, 2.5):
        expected = btlm_by_transformers(weights, config, (3.5, 0.9, by_width), np.array(slopes) / factor)
        assert difference(expected, btlm_logits(weights, config, IDS, factor)) < TOLERANCE


def test_alibi_slopes():
    np.testing.assert_allclose(alibi_slopes(2), [1 / 16, 1 / 256])
    np.testing.assert_allclose(alibi_slopes(4), [1 / 4, 1 / 16, 1 / 64, 1 / 256])
    np.testing.assert_allclose(alibi_slopes(8), [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256])
    np.testing.assert_allclose(alibi_slopes(3), [1 / 16, 1 / 256, 1 / 4])
    np.testing.assert_allclose(alibi_slopes(32)[[0, 3, 31]], [0.840896415, 0.5, 0.00390625])
    for num_heads in range(1, 41):
        bloom = build_alibi_tensor(torch.ones(1, 2, dtype=torch.int64), num_heads, torch.float64)[:, 0, 1]
        np.testing.assert_allclose(alibi_slopes(num_heads), bloom, rtol=1e-6)


def test_scales_of_the_published_configs():
    mup = {
        "mup_embeddings_scale": 14.6,
        "mup_output_alpha": 2.2200000000000003,
        "mup_width_scale": 0.1,
        "mup_scale_qk_dot_by_d": True,
    }
    old = {"embeddings_scale": 14.6, "output_logits_scale": 0.222, "scale_qk_dot_by_d": True, "width_scale": 0.1}
    np.testing.assert_allclose(btlm_scales(mup), (14.6, 0.222, 1.0))
    np.testing.assert_allclose(btlm_scales(old), (14.6, 0.222, 1.0))


def test_btlm_by_hand():
    """Without blocks: embedding (3, 1) is (10.5, 3.5) scaled, 3.5 (1, -1) centred, and 3.5 / sqrt(12.25 + 36.75)."""
    weights = {
        "transformer.wte.weight": np.array([[3.0, 1.0], [0.0, 2.0]]),
        "transformer.ln_f.weight": np.ones(2),
        "transformer.ln_f.bias": np.zeros(2),
    }
    config = {"n_layer": 0, "n_head": 1, "layer_norm_epsilon": 36.75}
    config |= {"embeddings_scale": 3.5, "output_logits_scale": 0.9, "scale_qk_dot_by_d": True}
    expected = [[0.9, -0.9], [-0.9, 0.9]]
    np.testing.assert_allclose(btlm_logits(weights, config, np.array([0, 1])), expected)


def test_attention_by_hand():
    """Two equal keys but for ALiBi of slope 1/16, and one masked: shares e^(-1/16) : 1."""
    ones = np.ones((1, 3, 2))
    v = np.array([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    distance = np.abs(np.arange(3)[:, None] - np.arange(3))
    y = slow_families.attend(ones, ones, v, 2.0, slow_families.prefix_mask(3), -distance / 16)
    near, far = 1 / (1 + math.exp(-1 / 16)), 1 / (1 + math.exp(1 / 16))
    np.testing.assert_allclose(y[:2], [[1, 0], [far, near]])


def gelu_erf(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def without_centring(x, w, name, eps):
    return slow_families.rms_norm(x, w, name, eps) + w[f"{name}.bias"]


def attend_by_width(q, k, v, divisor, *rest, attend=slow_families.attend):
    return attend(q, k, v, divisor**2, *rest)


def attend_evenly(q, k, v, divisor, *rest, attend=slow_families.attend):
    return attend(0 * q, k, v, divisor, *rest)


def turn_all(x, rotary_dim, turn_pairs=slow_families.turn_pairs):
    return turn_pairs(x, x.shape[-1])


@pytest.mark.parametrize(
    ("family", "formula", "wrong"),
    [
        ("gptj", "turn_pairs", slow_families.turn_halves),
        ("gptj", "turn_pairs", turn_all),
        ("gptj", "turn_pairs", lambda x, rotary_dim: x),
        ("gptj", "gelu_tanh", gelu_erf),
        ("gptj", "layer_norm", without_centring),
        ("gptj", "attend", attend_by_width),
        ("gptj", "attend", attend_evenly),
        ("gptj", "prefix_mask", lambda num, prefix_len: np.ones((num, num), bool)),
        ("gpt2", "gelu_tanh", gelu_erf),
        ("gpt2", "layer_norm", without_centring),
        ("gpt2", "attend", attend_by_width),
        ("gpt2", "attend", attend_evenly),
        ("llama", "turn_halves", slow_families.turn_pairs),
        ("llama", "rope_theta", lambda config: 10000.0),
        ("llama", "share_heads", lambda x, group: np.tile(x, (group, 1, 1))),
        ("llama", "attend", attend_by_width),
        ("llama", "attend", attend_evenly),
        ("llama", "silu", slow_families.gelu_tanh),
        ("btlm", "swiglu", lambda linear, gate: gate * slow_families.silu(linear)),
        ("btlm", "alibi_slopes", lambda num_heads: np.zeros(num_heads)),
        ("btlm", "alibi_slopes", lambda num_heads: alibi_slopes(num_heads)[::-1]),
        ("btlm", "btlm_scales", lambda config: (3.5, 0.9, 0.5)),
        ("btlm", "btlm_scales", lambda config: (1.0, 0.9, 1.0)),
        ("btlm", "btlm_scales", lambda config: (3.5, 2.25, 1.0)),
        ("btlm", "attend", attend_evenly),
    ],
)
def test_a_wrong_formula_shows(tmp_path, monkeypatch, family, formula, wrong):
    write, logits = FAMILIES[family]
    weights, config = read(write(tmp_path))
    expected = logits(weights, config, IDS)
    monkeypatch.setattr(slow_families, formula, wrong)
    assert difference(logits(weights, config, IDS), expected) > 20 * TOLERANCE


@pytest.mark.parametrize("part", ["attn.c_proj", "mlp.c_fc2"])
def test_conv1d_read_as_linear_shows(tmp_path, part):
    weights, config = read(write_btlm(tmp_path))
    expected, name = btlm_logits(weights, config, IDS), f"transformer.h.0.{part}.weight"
    weights[name] = weights[name].reshape(weights[name].shape[::-1]).T
    assert difference(btlm_logits(weights, config, IDS), expected) > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_of_order_one(tmp_path, family):
    write, logits = FAMILIES[family]
    weights, config = read(write(tmp_path))
    assert 0.5 < logits(weights, config, IDS)[:, :TOKENS].std() < 2


def test_rows_without_a_token_win_where_nobody_masks_them(tmp_path):
    weights, config = read(write_gptj(tmp_path))
    assert config["vocab_size"] == ROWS
    assert (gptj_logits(weights, config, IDS).argmax(-1) >= TOKENS).mean() > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_file_holds_the_same_weights(tmp_path, family):
    write, _ = FAMILIES[family]
    expected, _ = read(write(tmp_path / "one"))
    for name, options in {
        "shards": {"shards": True},
        "bin": {"safe": False},
        "bins": {"safe": False, "shards": True},
    }.items():
        folder = write(tmp_path / name, **options)
        weights, _ = read(folder)
        assert weights.keys() - expected.keys() <= {"lm_head.weight"}
        assert all(np.array_equal(weights[key], expected[key]) for key in expected)
        assert len(list(folder.glob("*.index.json"))) == int("shards" in options)
        assert len(list(folder.glob("*-of-*"))) > 1 or "shards" not in options


def test_masks_of_old_files(tmp_path):
    name = "transformer.h.{}.attn.bias"
    causal = torch.load(
        write_gptj(tmp_path / "a", legacy="causal", safe=False) / "pytorch_model.bin", weights_only=True
    )
    assert causal[name.format(0)].dtype == torch.bool
    assert torch.equal(causal[name.format(1)][0, 0], torch.ones(64, 64, dtype=torch.bool).tril())
    assert causal[name.format(0)].data_ptr() == causal[name.format(1)].data_ptr()
    jt = toy_checkpoints.load_file(write_gptj(tmp_path / "b", legacy="ones", dtype=torch.float16) / "model.safetensors")
    assert jt[name.format(1)].dtype == torch.uint8
    assert (jt[name.format(1)] == 1).all()
    assert jt["transformer.h.0.attn.masked_bias"] == float("-inf")
    weights, _ = read(write_btlm(tmp_path / "c", masks=True))
    assert np.array_equal(weights[name.format(1)][0, 0], np.tri(64))


def test_btlm_layout_gives_the_published_number_of_parameters(tmp_path):
    weights, config = read(write_btlm(tmp_path))

    def count(vocab_size, width, inner, num_blocks, num_heads):
        block = 4 * width**2 + 4 * width + 3 * width * inner + 2 * inner + width + 4 * width
        return vocab_size * width + num_blocks * block + 2 * width + num_heads

    assert count(50257, 2560, 6826, 32, 32) == 2_646_255_776
    sizes = (config[name] for name in ("vocab_size", "n_embd", "n_inner", "n_layer", "n_head"))
    assert count(*sizes) == sum(array.size for array in weights.values())
    assert weights["transformer.relative_pe.slopes"].shape == (4, 1)


def test_impostor_has_the_name_and_nothing_else(tmp_path):
    _, config = read(write_impostor(tmp_path / "a"))
    jx = read(write_btlm(tmp_path / "b", model_type="gpt_jx"))[1]
    assert config["architectures"] == jx["architectures"] == ["GPTJXForCausalLM"]
    assert not any("scale" in key for key in config)
    assert read(write_impostor(tmp_path / "c", model_type="gpt_jx"))[1]["model_type"] == jx["model_type"]


@pytest.mark.parametrize("module", [slow_families, toy_checkpoints])
def test_references_import_nothing_that_they_judge(module):
    tree = ast.parse(Path(module.__file__).read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert names
    assert not any(name.split(".")[0] in ("bytelm", "support", "slow_model") for name in names)

"""Whole folders of other families, in the formats that others write, against the plain formulas."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from slow_families import btlm_logits, gpt2_logits, gptj_logits, llama_logits
from toy_checkpoints import TOKENS, read, write_btlm, write_gpt2, write_gptj, write_llama
from toy_tokenizer import with_tokenizer

from bytelm.decoding import decode
from bytelm.errors import CheckpointError
from bytelm.hub.family_folder import load_family
from bytelm.model.targets import make_target
from bytelm.nn.four_bit import code_book

FOLDERS = {
    "gptj": (write_gptj, gptj_logits, {}),
    "gptj bin": (write_gptj, gptj_logits, {"safe": False, "legacy": "causal"}),
    "gptj shards": (write_gptj, gptj_logits, {"shards": True}),
    "gptj half": (write_gptj, gptj_logits, {"dtype": torch.float16}),
    "llama": (write_llama, llama_logits, {}),
    "llama old": (write_llama, llama_logits, {"old": True, "safe": False}),
    "llama tied": (write_llama, llama_logits, {"tied": True}),
    "gpt2": (write_gpt2, gpt2_logits, {}),
    "gpt2 published": (write_gpt2, gpt2_logits, {"published": True}),
    "btlm": (write_btlm, btlm_logits, {}),
    "btlm old, head": (write_btlm, btlm_logits, {"spelling": "old", "lm_head": True, "masks": True}),
    "gpt_jx bin": (write_btlm, btlm_logits, {"model_type": "gpt_jx", "safe": False}),
}


@torch.no_grad()
def logits_of(model, ids):
    windows = torch.as_tensor(ids)[None, :, None]
    return model.heads.step(model(windows), windows, windows[..., :0])[0].numpy()


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_are_those_of_the_formulas(name, tmp_path):
    write, reference, options = FOLDERS[name]
    folder = with_tokenizer(write(tmp_path / "m", **options))
    found = load_family(folder, dtype=torch.float32)
    ids = np.random.default_rng(0).integers(0, TOKENS, 25)
    weights, config = read(folder)
    np.testing.assert_allclose(logits_of(found.model, ids), reference(weights, config, ids)[:, :TOKENS], atol=2e-5)
    assert found.model.config.prompt == "causal"
    assert found.model.config.vocab_size == found.tokenizer.vocab_size == TOKENS


def test_a_mask_of_ones_makes_a_prefix_model(tmp_path):
    folder = with_tokenizer(write_gptj(tmp_path / "m", legacy="ones"))
    found = load_family(folder)
    assert (found.family.name, found.model.config.prompt) == ("gptj", "prefix")
    prompt = found.tokenizer.encode("a small harbour")
    out = decode(make_target(found.model, "next", np.zeros(0, np.int64)), [prompt], max_new=12)
    weights, config = read(folder)
    whole = np.concatenate((prompt, out.symbols[0]))
    expected = gptj_logits(weights, config, whole, prefix_len=len(prompt))[len(prompt) - 1 : -1, :TOKENS]
    assert expected.argmax(-1).tolist() == out.symbols[0].tolist()


def test_ids_without_a_token_are_not_part_of_the_law(tmp_path):
    """Their rows have the highest logits in this file."""
    folder = with_tokenizer(write_gptj(tmp_path / "m"))
    found = load_family(folder)
    prompts = [found.tokenizer.encode(text) for text in ("a", "harbour", "water")]
    out = decode(make_target(found.model, "next", np.zeros(0, np.int64)), prompts, max_new=30)
    assert (np.concatenate(out.symbols) < TOKENS).all()
    whole = load_family(with_tokenizer(write_gptj(tmp_path / "all"), 272))
    out = decode(make_target(whole.model, "next", np.zeros(0, np.int64)), prompts, max_new=30)
    assert (np.concatenate(out.symbols) >= TOKENS).any()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_types(dtype, tmp_path):
    model = load_family(with_tokenizer(write_gptj(tmp_path / "m", dtype=torch.bfloat16)), dtype=dtype).model
    assert {p.dtype for p in model.parameters()} == {dtype or torch.bfloat16}


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.usefixtures("plain_bitsandbytes")
def test_weights_in_four_bits_are_those_of_bitsandbytes(quant_type, nested, tmp_path, monkeypatch):
    transformers, bitsandbytes = pytest.importorskip("transformers"), pytest.importorskip("bitsandbytes")
    monkeypatch.setattr("transformers.quantizers.quantizer_bnb_4bit.is_accelerate_available", lambda: True)
    source = write_gptj(tmp_path / "plain", n_embd=64)
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=quant_type, bnb_4bit_use_double_quant=nested
    )
    theirs = transformers.GPTJForCausalLM.from_pretrained(source, quantization_config=settings)
    theirs.save_pretrained(tmp_path / "m")
    model = load_family(with_tokenizer(tmp_path / "m")).model
    layer = theirs.transformer.h[1].mlp.fc_in.weight
    expected = bitsandbytes.functional.dequantize_4bit(layer.data, layer.quant_state)
    assert torch.equal(model.blocks[1].feedforward.up.weight, expected.to(model.blocks[1].feedforward.up.weight.dtype))
    plain = load_family(with_tokenizer(source)).model
    ids = np.random.default_rng(0).integers(0, TOKENS, 25)
    near, exact = logits_of(model.float(), ids), logits_of(plain, ids)
    assert 0 < np.abs(near - exact).mean() < exact.std() / 2


class RunsCode:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def change(folder, edit, name="model.safetensors"):
    """Edit the tensors of a file."""
    state = load_file(folder / name)
    edit(state)
    save_file(state, folder / name)


def cut(path, num_bytes):
    path.write_bytes(path.read_bytes()[:-num_bytes])


def configure(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def run_code(folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**state, "more": RunsCode(folder / "made")}, folder / "pytorch_model.bin")


def in_four_bits(state, quant_type="nf4", num_scales=36):
    """A matrix of 48 by 48 of the first block as bitsandbytes has it."""
    told = {"quant_type": quant_type, "blocksize": 64, "dtype": "float32", "shape": [48, 48]}
    state[QUERY] = torch.zeros(48 * 24, 1, dtype=torch.uint8)
    state[f"{QUERY}.absmax"], state[f"{QUERY}.quant_map"] = torch.ones(num_scales), code_book("nf4")
    name = f"{QUERY}.quant_state.bitsandbytes__{quant_type}"
    state[name] = torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)


QUERY = "transformer.h.0.attn.q_proj.weight"
SHARD = "model-00002-of-00004.safetensors"

DAMAGED = {
    "cut": (lambda f: cut(f / "model.safetensors", 100), r"model\.safetensors: the file is cut: .* of tensor '.+' the"),
    "cut shard": (
        lambda f: cut(f / SHARD, 3),
        rf"{SHARD}: the file is cut: of the \d+ bytes of tensor '.+' the last 3",
    ),
    "cut config": (lambda f: cut(f / "config.json", 9), r"config\.json: not readable as JSON"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json: no such file"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no weights, expected one of model\.safetensors, "),
    "no shard": (lambda f: (f / SHARD).unlink(), rf"index\.json: names \d shards, of which 1 are missing: {SHARD}"),
    "no tensor": (
        lambda f: change(f, lambda s: s.pop("lm_head.bias")),
        r"tensor lm_head\.bias is missing, expected one for heads\.unembedding\.bias of a gptj model",
    ),
    "another shape": (
        lambda f: change(f, lambda s: s.update({QUERY: torch.zeros(48, 47)})),
        rf"model\.safetensors: tensor {QUERY} has shape \[48, 47\], expected \[48, 48\]",
    ),
    "another type": (
        lambda f: change(f, lambda s: s.update({QUERY: torch.zeros(48, 48, dtype=torch.int8)})),
        rf"model\.safetensors: tensor {QUERY} is torch\.int8, expected floats",
    ),
    "one too many": (
        lambda f: change(f, lambda s: s.update({"transformer.h.0.attn.gate.weight": torch.zeros(1)})),
        r"model\.safetensors: tensor transformer\.h\.0\.attn\.gate\.weight has no place in a gptj model",
    ),
    "another model": (
        lambda f: configure(f, model_type="gpt_neox"),
        r"config\.json: model_type 'gpt_neox' with tensors such as lm_head\.bias, expected gptj, llama",
    ),
    "another architecture": (lambda f: configure(f, model_type="llama"), "model_type 'llama' with tensors such as"),
    "another width": (lambda f: configure(f, n_embd=40), r"tensor .+ has shape \[.*48\], expected \[.*40\]"),
    "no tokenizer": (lambda f: (f / "vocab.json").unlink(), r"found neither tokenizer\.json nor vocab\.json, expected"),
    "no merges": (lambda f: (f / "merges.txt").unlink(), r"merges\.txt: no such file"),
    "large vocabulary": (
        lambda f: with_tokenizer(f, 300),
        "tokenizer: does not fit the checkpoint: vocab_size: found 300, expected at most 272",
    ),
    "an unknown quant type": (
        lambda f: change(f, lambda s: in_four_bits(s, "int4")),
        rf"{QUERY}\.quant_state\.bitsandbytes__int4 is of an unknown quant type, expected one of nf4, fp4",
    ),
    "too few scales": (
        lambda f: change(f, lambda s: in_four_bits(s, num_scales=35)),
        rf"model\.safetensors: tensor {QUERY}\.absmax has 35 scales, expected 36 for shape \[48, 48\]",
    ),
    "scales alone": (
        lambda f: change(f, lambda s: (in_four_bits(s), s.pop(QUERY))),
        rf"model\.safetensors: tensor {QUERY} is missing",
    ),
    "code": (run_code, r"pytorch_model\.bin: refused: it asks for \w+\.mkdir, which was not run"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_does_not_fit_is_refused(name, tmp_path):
    damage, match = DAMAGED[name]
    folder = with_tokenizer(write_gptj(tmp_path / "m", shards="shard" in name))
    load_family(folder)
    damage(folder)
    for four_bit in ("dequantise", "keep") if "scales" in name or "quant" in name else ("dequantise",):
        with pytest.raises(CheckpointError, match=match) as caught:
            load_family(folder, four_bit=four_bit)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(folder))
    assert not (folder / "made").exists()


def test_a_matrix_in_four_bits_and_no_folder(tmp_path):
    """The negative control of those above that are damaged, and the folder that is not there."""
    folder = with_tokenizer(write_gptj(tmp_path / "m"))
    change(folder, in_four_bits)
    assert (load_family(folder).model.blocks[0].attention.query_key_value.weight[:48] == -1).all()
    with pytest.raises(CheckpointError, match="none: no such folder, expected one with"):
        load_family(tmp_path / "none")

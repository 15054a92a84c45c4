"""Whole folders of other families, in the formats that others write, against the plain formulas."""

import numpy as np
import pytest
import torch
from slow_families import btlm_logits, gpt2_logits, gptj_logits, llama_logits
from toy_checkpoints import TOKENS, read, with_tokenizer, write_btlm, write_gpt2, write_gptj, write_llama

from bytelm.decoding import decode
from bytelm.errors import CheckpointError
from bytelm.hub.family_folder import load_family
from bytelm.model.targets import make_target

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


def refused(folder, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        load_family(folder)
    assert "\n" not in str(caught.value)
    assert str(folder.name) in str(caught.value)


def test_what_does_not_fit_is_refused(tmp_path):
    refused(tmp_path / "none", "no such folder")
    folder = write_gptj(tmp_path / "m")
    refused(folder, "tokenizer.json")
    refused(
        with_tokenizer(folder, 300),
        "tokenizer: does not fit the checkpoint: vocab_size: found 300, expected at most 272",
    )
    with_tokenizer(folder)
    (folder / "added_tokens.json").unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(folder, "model.safetensors")

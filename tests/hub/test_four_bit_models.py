"""Models whose linear layers stay in four bits, against the same checkpoint dequantised on load."""

import copy
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_family_folder import logits_of
from toy_checkpoints import TOKENS, write_btlm, write_gpt2, write_gptj, write_llama
from toy_tokenizer import with_tokenizer

from bytelm.decoding import LookupDrafter, decode
from bytelm.errors import CheckpointError, ConfigError
from bytelm.hub.family_folder import load_family
from bytelm.hub.import_weights import export_tensors
from bytelm.model.targets import make_target
from bytelm.nn.four_bit import FourBitFusedLinear, FourBitLinear, KernelFourBitLinear, ReorderedLinear

bitsandbytes = pytest.importorskip("bitsandbytes")

ODD = {"n_embd": 44, "n_head": 2, "n_inner": 100}
"""Rows of 44 and of 100 values: blocks of 64 begin within rows."""

FAMILIES = {
    "gptj": (write_gptj, {}),
    "gptj odd": (write_gptj, ODD),
    "gptj prefix": (write_gptj, {"legacy": "ones"}),
    "llama": (write_llama, {}),
    "gpt2": (write_gpt2, {}),
    "gpt2 odd": (write_gpt2, ODD),
    "btlm": (write_btlm, {}),
}


def quantised(folder, *, quant_type="nf4", nested=False, only=("attn.", "mlp."), transposed=False):
    """Put the matrices whose names have one of ``only`` into four bits, as bitsandbytes writes them."""
    path, state = folder / "model.safetensors", {}
    for name, tensor in load_file(path).items():
        if tensor.dim() < 2 or "bias" in name or not any(part in name for part in only):
            state[name] = tensor
            continue
        rows = tensor.T.contiguous() if transposed else tensor
        packed, told = bitsandbytes.functional.quantize_4bit(rows, quant_type=quant_type, compress_statistics=nested)
        state[name] = packed
        state |= {f"{name}.{part}": value for part, value in told.as_dict(packed=True).items()}
    save_file(state, path)
    return with_tokenizer(folder)


def write(folder, family, **options):
    """A toy checkpoint of a family in four bits."""
    make, changes = FAMILIES[family]
    only = ("self_attn", "mlp.") if family == "llama" else ("attn.", "mlp.")
    return quantised(make(folder, **changes), only=only, transposed=make in (write_gpt2, write_btlm), **options)


def load(folder, four_bit, **options):
    return load_family(folder, four_bit=four_bit, **options).model


def rows_of(layer):
    """The weight that a layer multiplies with, plain."""
    match layer:
        case FourBitFusedLinear():
            return torch.cat([rows_of(one) for one in layer.layers])
        case ReorderedLinear():
            return rows_of(layer.layer)[layer.order]
        case FourBitLinear():
            return layer.four_bit.dequantise(torch.float32)
    return layer.weight


def bias_of(layer):
    match layer:
        case FourBitFusedLinear():
            parts = [bias_of(one) for one in layer.layers]
            return None if parts[0] is None else torch.cat(parts)
        case ReorderedLinear():
            inner = bias_of(layer.layer)
            return None if inner is None else inner[layer.order]
    return layer.bias


def linears(model):
    """The four linear layers of each block, by name."""
    names = [name for name, layer in model.named_modules() if name.startswith("blocks.")]
    ends = ("query_key_value", "attention.output", "gate_up", "feedforward.up", "down")
    return {name: model.get_submodule(name) for name in names if name.endswith(ends)}


@pytest.mark.parametrize(("quant_type", "nested"), [("nf4", False), ("fp4", True)])
@pytest.mark.parametrize("family", FAMILIES)
def test_kept_weights_are_the_dequantised_ones(family, quant_type, nested, tmp_path):
    folder = write(tmp_path / "m", family, quant_type=quant_type, nested=nested)
    plain, kept = load(folder, "dequantise"), load(folder, "keep")
    assert kept.config == plain.config
    expected, found = linears(plain), linears(kept)
    assert len(expected) == len(found) == 8
    for name, layer in found.items():
        assert not isinstance(layer, torch.nn.Linear)
        assert torch.equal(rows_of(layer), expected[name].weight), name
        bias = bias_of(layer)
        assert (bias is None) == (expected[name].bias is None)
        assert bias is None or torch.equal(bias, expected[name].bias)
    names = {name for name, _ in kept.named_parameters()} & {name for name, _ in plain.named_parameters()}
    assert all(torch.equal(kept.get_parameter(name), plain.get_parameter(name)) for name in names)
    ids = np.random.default_rng(0).integers(0, TOKENS, 25)
    np.testing.assert_allclose(logits_of(kept, ids), logits_of(plain, ids), atol=2e-5)


@pytest.mark.parametrize("family", ["gptj odd", "gptj prefix", "llama", "btlm"])
def test_decoding_is_that_of_the_dequantised_model(family, tmp_path):
    """Through targets with a cache, in batches of prompts of different lengths, with and without drafts."""
    folder, bos = write(tmp_path / "m", family), np.zeros(0, np.int64)
    prompts = [np.random.default_rng(0).integers(0, 256, num) for num in (7, 2, 11)]
    plain = decode(make_target(load(folder, "dequantise"), "next", bos), prompts, max_new=16)
    for use, drafter in (("keep", None), ("keep", LookupDrafter(4, min_match=1)), ("kernels", None)):
        found = decode(make_target(load(folder, use), "next", bos), prompts, max_new=16, drafter=drafter)
        assert [row.tolist() for row in found.symbols] == [row.tolist() for row in plain.symbols]
        for nats, expected in zip(found.nats, plain.nats, strict=True):
            np.testing.assert_allclose(nats, expected, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["gptj odd", "btlm"])
def test_kernels_give_the_same(family, dtype, tmp_path):
    folder, ids = write(tmp_path / "m", family), np.random.default_rng(0).integers(0, TOKENS, 25)
    kept, kernels = (load(folder, use, dtype=dtype) for use in ("keep", "kernels"))
    assert any(isinstance(layer, KernelFourBitLinear) for layer in kernels.modules())
    assert not any(isinstance(layer, KernelFourBitLinear) for layer in kept.modules())
    expected = logits_of(kept.float(), ids)
    near = 2e-5 if dtype == torch.float32 else 0.03 * expected.std()
    assert np.abs(logits_of(kernels.float(), ids) - expected).max() < near


def test_bfloat16(tmp_path):
    """Products are rounded in another order than those of the fused plain layer; their error is that of bfloat16."""
    folder, ids = write(tmp_path / "m", "gptj odd"), np.random.default_rng(0).integers(0, TOKENS, 25)
    exact = logits_of(load(folder, "dequantise"), ids)
    windows = torch.as_tensor(ids)[None, :, None]
    errors = []
    for use in ("dequantise", "keep"):
        model = load(folder, use, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        cache = model.new_cache(1, 8)
        assert (cache.keys[0].dtype, model.device.type) == (torch.bfloat16, "cpu")
        with torch.no_grad():
            logits = model.heads.step(model(windows), windows, windows[..., :0])[0]
        assert logits.dtype == torch.bfloat16
        errors.append(np.abs(logits.float().numpy() - exact).mean() / exact.std())
    assert errors[1] < 1.5 * errors[0] < 0.05


def num_bytes(model):
    """Memory of all tensors, each storage once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize(("nested", "most"), [(False, 0.31), (True, 0.29)])
def test_memory_of_a_body(nested, most, tmp_path):
    """Four bits and a scale for every 64 of them are 0.281 of bfloat16; embedding and head stay in it. Goal: 0.35."""
    sizes = {"n_embd": 320, "n_head": 8, "rotary_dim": 32, "n_layer": 4}
    folder = quantised(write_gptj(tmp_path / "m", dtype=torch.bfloat16, **sizes), nested=nested)
    plain, kept = load(folder, "dequantise"), load(folder, "keep")
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.bfloat16}
    assert num_bytes(plain) == 2 * plain.config.num_parameters()
    ratio = num_bytes(kept) / num_bytes(plain)
    assert 0.26 < ratio < most < 0.35
    logits_of(kept.float(), [1, 2, 3])
    assert num_bytes(kept.bfloat16()) / num_bytes(plain) == ratio, "a forward leaves nothing behind"


@pytest.mark.parametrize("only", [("attn.q_proj",), ("v_proj", "fc_out"), ("lm_head", "attn.")])
def test_parts_in_four_bits(only, tmp_path):
    """Some matrices alone: fused layers have plain parts too, and a head in four bits is dequantised always."""
    folder = quantised(write_gptj(tmp_path / "m", **ODD), only=only)
    plain, kept = load(folder, "dequantise"), load(folder, "keep")
    for name, layer in linears(kept).items():
        assert torch.equal(rows_of(layer), linears(plain)[name].weight), name
    assert isinstance(kept.heads.unembedding, torch.nn.Linear)
    assert isinstance(kept.blocks[0].feedforward.up, torch.nn.Linear)
    ids = np.random.default_rng(0).integers(0, TOKENS, 25)
    np.testing.assert_allclose(logits_of(kept, ids), logits_of(plain, ids), atol=2e-5)


def test_copies_and_gradients(tmp_path):
    """What trains on a kept model gets the gradients of the plain one."""
    folder, ids = write(tmp_path / "m", "gptj odd"), torch.arange(12)[None, :, None]
    gradients = []
    for model in (load(folder, "dequantise"), copy.deepcopy(load(folder, "keep"))):
        model(ids).square().sum().backward()
        gradients.append(model.merger.embedding.weight.grad)
    assert gradients[0].abs().max() > 0.1
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.usefixtures("plain_bitsandbytes")
def test_a_gpt2_of_transformers_and_bitsandbytes(nested, tmp_path, monkeypatch):
    """Its matrices are transposed before they are quantised, so that the file has outputs by inputs."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr("transformers.quantizers.quantizer_bnb_4bit.is_accelerate_available", lambda: True)
    source = write_gpt2(tmp_path / "plain", **ODD)
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested
    )
    theirs = transformers.GPT2LMHeadModel.from_pretrained(source, quantization_config=settings).eval()
    theirs.save_pretrained(tmp_path / "m")
    ours = load_file(quantised(source, nested=nested, transposed=True) / "model.safetensors")
    written = load_file(tmp_path / "m" / "model.safetensors")
    assert written.keys() == ours.keys()
    assert all(torch.equal(written[name], ours[name]) for name in written)
    folder, ids = with_tokenizer(tmp_path / "m"), np.random.default_rng(0).integers(0, TOKENS, 25)
    with torch.no_grad():
        expected = theirs(torch.as_tensor(ids)[None]).logits[0].float().numpy()
    for use in ("dequantise", "keep", "kernels"):
        np.testing.assert_allclose(logits_of(load(folder, use), ids), expected, atol=2e-5)


def test_refusals(tmp_path, monkeypatch):
    plain = with_tokenizer(write_gptj(tmp_path / "plain"))
    for use in ("keep", "kernels"):
        with pytest.raises(CheckpointError, match=rf"plain: no weight is in four bits, expected some for .*'{use}'$"):
            load(plain, use)
    with pytest.raises(ConfigError, match=r"^four_bit: found 'int8', expected one of dequantise, keep, kernels$"):
        load(plain, "int8")
    found = load_family(write(tmp_path / "m", "gptj"), four_bit="keep")
    with pytest.raises(CheckpointError, match=r"^model: has layers in four bits, expected one whose weights were"):
        list(export_tensors(found.model, found.family))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"^bitsandbytes: cannot be imported .*bytelm\[quant\]$"):
        load(tmp_path / "m", "kernels")
    load(tmp_path / "m", "keep")

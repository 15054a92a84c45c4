"""Weights in int8 through torchao: which, how far from the others, and as what products they are read."""

import sys

import pytest
import torch
import torch.nn.functional as F
from bpe_models import folder_of
from support import gptj_toy
from torch import nn

import bytelm
from bytelm.benchmarks import weight_bytes
from bytelm.errors import ConfigError
from bytelm.hub.int8 import int8_copy, quantise_int8
from bytelm.nn import linear as module
from bytelm.nn import native
from bytelm.nn.linear import linear


@pytest.fixture
def quantised():
    pytest.importorskip("torchao")
    lm = gptj_toy(torch.bfloat16)
    before = {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}
    quantise_int8(lm.model)
    return lm, before


def test_every_matrix_of_a_layer_is_rounded_and_nothing_else(quantised):
    lm, before = quantised
    rounded = {f"{name}.weight" for name, part in lm.model.named_modules() if isinstance(part, nn.Linear)}
    assert len(rounded) == 1 + 4 * lm.config.num_blocks
    for name, weight in lm.model.named_parameters():
        if name not in rounded:
            assert torch.equal(weight, before[name])
            continue
        assert weight.qdata.dtype == torch.int8
        step = before[name].float().abs().amax(1, keepdim=True) / 127
        assert ((weight.dequantize().float() - before[name].float()).abs() <= step).all()


def test_bytes_that_are_read_are_half(quantised):
    lm, _ = quantised
    assert 2 * weight_bytes(lm.model, "next") == weight_bytes(gptj_toy(torch.bfloat16).model, "next")


@torch.no_grad()
def test_products_are_those_of_the_rounded_weight(quantised):
    layer = quantised[0].model.blocks[0].feedforward.up
    x = torch.randn(5, layer.in_features).to(torch.bfloat16)
    exact = x.double() @ (layer.weight.qdata.double() * layer.weight.scale.double()).t() + layer.bias.double()
    found = linear(x, layer.weight, layer.bias)
    assert ((found.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-5).all()
    torch.testing.assert_close(found, F.linear(x, layer.weight, layer.bias), atol=2e-2, rtol=2e-2)


@pytest.mark.skipif(native.core is None, reason="no native core here")
def test_generating_reads_codes_through_the_native_core(quantised, monkeypatch):
    calls = []
    run = module._rows_linear
    monkeypatch.setattr(module, "_rows_linear", lambda *args: calls.append(args[1].dtype) or run(*args))
    out = quantised[0].generate(["A"], max_new_tokens=3, draft="none", eos_token_id=())
    assert len(out.ids[0]) == 3
    assert calls == [torch.int8] * 3 * (1 + 4 * quantised[0].config.num_blocks)


def test_a_copy_shares_all_else_and_leaves_the_first_as_it_was(quantised):
    lm = gptj_toy(torch.bfloat16)
    before = {name: parameter.data_ptr() for name, parameter in lm.model.named_parameters()}
    copied = int8_copy(lm.model)
    assert {name: parameter.data_ptr() for name, parameter in lm.model.named_parameters()} == before
    for name, weight in copied.named_parameters():
        if hasattr(weight, "qdata"):
            assert torch.equal(weight.qdata, quantised[0].model.get_parameter(name).qdata)
        else:
            assert weight is lm.model.get_parameter(name)
    assert sum(hasattr(weight, "qdata") for weight in copied.parameters()) == 1 + 4 * lm.config.num_blocks
    assert all(buffer is lm.model.get_buffer(name) for name, buffer in copied.named_buffers())


def test_a_folder_is_loaded_in_int8():
    pytest.importorskip("torchao")
    lm = bytelm.load(folder_of("gptj"), dtype=torch.bfloat16, int8=True)
    layers = [part for part in lm.model.modules() if isinstance(part, nn.Linear)]
    assert all(layer.weight.qdata.dtype == torch.int8 for layer in layers)
    out = lm.generate(["A"], max_new_tokens=3, eos_token_id=())
    assert out.ids[0].tolist() == lm.generate(["A"], max_new_tokens=3, eos_token_id=(), draft="lookup").ids[0].tolist()


def test_a_head_that_is_the_embedding_stays():
    pytest.importorskip("torchao")
    model = gptj_toy(torch.bfloat16, tied=True).model
    quantise_int8(model)
    assert model.heads.unembedding.weight is model.merger.embedding.weight
    assert not hasattr(model.heads.unembedding.weight, "qdata")


def test_without_torchao_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ConfigError, match=r"^torchao: cannot be imported .*, expected the extra bytelm\[quant\]"):
        quantise_int8(gptj_toy(torch.bfloat16).model)

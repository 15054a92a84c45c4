import copy
import subprocess
import sys
from math import prod

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bytelm.errors import ConfigError
from bytelm.nn import four_bit
from bytelm.nn.four_bit import (
    BLOCK_SIZES,
    FourBitFusedLinear,
    FourBitLinear,
    FourBitWeight,
    KernelFourBitLinear,
    NestedScales,
    ReorderedLinear,
    code_book,
)

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(64, 64), (3, 64), (5, 7), (7, 6), (33, 50), (1, 1), (96,), (130, 300), (6, 3, 8)]


def random_weight(shape, quant_type, nested, blocksize=64, dtype=torch.float16):
    """Random codes and scales, the number of blocks being what the shape needs."""
    num = prod(shape)
    blocks = -(-num // blocksize)
    scales = torch.rand(blocks) * 0.1
    if nested:
        codes = torch.randint(0, 256, (blocks,), dtype=torch.uint8)
        scales = NestedScales(codes, torch.rand(-(-blocks // 256)) * 0.1, torch.linspace(-1, 1, 256), 0.0518, 256)
    packed = torch.randint(0, 256, (-(-num // 2),), dtype=torch.uint8)
    return FourBitWeight(packed, scales, code_book(quant_type), blocksize, shape, quant_type, dtype)


def from_state(packed, state):
    """A weight of ours with what bitsandbytes has in memory."""
    scales = state.absmax
    if state.nested:
        second = state.state2
        scales = NestedScales(scales, second.absmax, second.code, float(state.offset), second.blocksize)
    code = code_book(state.quant_type)
    return FourBitWeight(
        packed.flatten(), scales, code, state.blocksize, tuple(state.shape), state.quant_type, state.dtype
    )


def to_state(library, weight, dtype):
    """The description of a weight of ours for bitsandbytes."""
    scales, offset, second = weight.scales, None, None
    if isinstance(scales, NestedScales):
        second = library.functional.QuantState(
            absmax=scales.absmax, code=scales.code, blocksize=256, dtype=torch.float32
        )
        offset, scales = torch.tensor(scales.offset), scales.codes
    return library.functional.QuantState(
        absmax=scales,
        shape=torch.Size(weight.shape),
        code=weight.code,
        blocksize=weight.blocksize,
        quant_type=weight.quant_type,
        dtype=dtype,
        offset=offset,
        state2=second,
    )


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def equal_to_theirs(ours, theirs, quant_type):
    """Bit for bit; of the negative zero of fp4 some of the ways of bitsandbytes know, others do not."""
    if quant_type == "fp4":
        return same_bits(ours + 0.0, theirs + 0.0)
    return same_bits(ours, theirs)


def round_to_bfloat16(x):
    """To the nearest, ties to even, in integers."""
    bits = int(np.float32(x).view(np.uint32))
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return np.array([bits], dtype=np.uint32).view(np.float32)[0]


def slow_values(weight, dtype):
    """The formula, one value at a time; float32 of the rounded values."""
    values = []
    for i in range(prod(weight.shape)):
        byte = int(weight.packed[i // 2])
        code = byte >> 4 if i % 2 == 0 else byte & 15
        block, scales = i // weight.blocksize, weight.scales
        if isinstance(scales, NestedScales):
            scale = np.float32(scales.code[int(scales.codes[block])]) * np.float32(
                scales.absmax[block // scales.blocksize]
            ) + np.float32(scales.offset)
        else:
            scale = np.float32(scales[block])
        value = np.float32(weight.code[code]) * scale
        if dtype == torch.bfloat16:
            value = round_to_bfloat16(value)
        values.append(np.float32(np.float16(value) if dtype == torch.float16 else value))
    return torch.tensor(np.array(values)).view(weight.shape)


def test_code_books():
    nf4, fp4 = code_book("nf4"), code_book("fp4")
    assert nf4.tolist() == sorted(set(nf4.tolist()))
    assert (nf4[0], nf4[7], nf4[15]) == (-1, 0, 1)
    # Two bits of exponent and one of mantissa: 2^e and 1.5 * 2^e, over the largest.
    assert sorted(fp4[:8].tolist()) == pytest.approx([0, 1 / 192, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1])
    assert torch.equal(fp4[8:], -fp4[:8])
    assert fp4.signbit().tolist() == [False] * 8 + [True] * 8


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize(("shape", "blocksize"), [((3, 64), 64), ((5, 7), 32), ((21, 50), 64), ((1, 1), 64)])
def test_dequantise_equals_a_loop_over_values(shape, blocksize, quant_type, nested):
    weight = random_weight(shape, quant_type, nested, blocksize)
    for dtype in DTYPES:
        values = weight.dequantise(dtype)
        assert values.dtype == dtype
        assert same_bits(values.float(), slow_values(weight, dtype))
    assert weight.dequantise().dtype == weight.dtype


def test_nested_scales_of_many_groups():
    weight = random_weight((40, 512), "nf4", True, 32)
    assert len(weight.scales.absmax) == 3
    assert same_bits(weight.dequantise(torch.float32), slow_values(weight, torch.float32))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_bit_for_bit_what_bitsandbytes_gives(plain_bitsandbytes, quant_type, nested, dtype, shape):
    for blocksize in BLOCK_SIZES:
        packed, state = plain_bitsandbytes.functional.quantize_4bit(
            (torch.randn(shape) * 0.02).to(dtype),
            blocksize=blocksize,
            compress_statistics=nested,
            quant_type=quant_type,
        )
        weight = from_state(packed, state)
        theirs = plain_bitsandbytes.functional.dequantize_4bit(packed, state)
        # A packed [1, 1] reads as transposed there.
        assert equal_to_theirs(weight.dequantise(dtype), theirs.view(shape), quant_type)
        assert same_bits(code_book(quant_type) + 0.0, state.code + 0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_every_byte_at_the_ends_of_the_number_range(plain_bitsandbytes, quant_type, dtype):
    for scale in [0.0, 1e-45, 1e-40, 3e-8, 6e-5, 1.0, 65_504.0, 65_520.0, 1e5, 3.4e38]:
        packed = torch.arange(256, dtype=torch.uint8)
        weight = FourBitWeight(
            packed, torch.full((8,), scale), code_book(quant_type), 64, (8, 64), quant_type, torch.float16
        )
        theirs = plain_bitsandbytes.functional.dequantize_4bit(
            packed[:, None], to_state(plain_bitsandbytes, weight, dtype)
        )
        assert equal_to_theirs(weight.dequantise(dtype), theirs, quant_type), scale


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_bit_for_bit_what_the_kernels_of_bitsandbytes_give(quant_type, dtype):
    """Where rows are whole blocks, which those for AVX-512 need, and numbers are normal, which they make zero."""
    library = pytest.importorskip("bitsandbytes")
    for blocksize, shape in [(32, (3, 64)), (64, (64, 64)), (64, (5, 4096)), (128, (7, 384)), (1024, (2, 2048))]:
        packed, state = library.functional.quantize_4bit(
            (torch.randn(shape) * 0.02).to(dtype), blocksize=blocksize, quant_type=quant_type
        )
        theirs = library.functional.dequantize_4bit(packed, state)
        assert equal_to_theirs(from_state(packed, state).dequantise(dtype), theirs, quant_type)


@pytest.mark.parametrize("nested", [False, True])
def test_chunks_add_up(monkeypatch, nested):
    weight = random_weight((41, 501), "fp4", nested, 4096 // 2)
    whole = weight.dequantise()
    monkeypatch.setattr(four_bit, "_CHUNK", 4096)
    assert same_bits(weight.dequantise(), whole)
    assert all(four_bit._CHUNK % blocksize == 0 for blocksize in BLOCK_SIZES)


def test_a_weight_of_more_than_one_chunk(plain_bitsandbytes):
    assert four_bit._CHUNK < 1_500 * 1_000
    packed, state = plain_bitsandbytes.functional.quantize_4bit(torch.randn(1_500, 1_000).half(), quant_type="nf4")
    assert same_bits(
        from_state(packed, state).dequantise(), plain_bitsandbytes.functional.dequantize_4bit(packed, state)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_linear_is_the_linear_of_the_dequantised_weight(nested, with_bias, dtype):
    weight = random_weight((24, 50), "nf4", nested)
    bias = torch.randn(24, dtype=dtype) if with_bias else None
    layer = FourBitLinear(weight, bias)
    x, again = (torch.linspace(-1, 1, 300, dtype=dtype).view(2, 3, 50).requires_grad_() for _ in range(2))
    y = layer(x)
    plain = nn.Linear(50, 24, bias=with_bias, dtype=dtype)
    with torch.no_grad():
        plain.weight.copy_(weight.dequantise(dtype))
        if with_bias:
            plain.bias.copy_(bias)
    assert same_bits(y.detach(), plain(again).detach())
    y.square().sum().backward()
    plain(again).square().sum().backward()
    assert torch.equal(x.grad, again.grad)
    assert [name for name, _ in layer.named_parameters()] == (["bias"] if with_bias else [])
    assert with_bias is (layer.bias is not None)
    assert (layer.in_features, layer.out_features) == (50, 24)
    assert "nf4" in repr(layer)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casts_of_the_module_leave_the_weight_alone(cast, nested):
    weight = random_weight((24, 64), "fp4", nested)
    layer = FourBitLinear(weight, torch.randn(24))
    before = layer.four_bit.dequantise(torch.float32)
    model = getattr(nn.Sequential(copy.deepcopy(layer)), cast)()
    assert model[0].bias.dtype == getattr(torch.zeros(1), cast)().dtype
    assert same_bits(model[0].four_bit.dequantise(torch.float32), before)
    assert model[0].four_bit.dequantise().dtype == weight.dtype


def test_the_state_of_a_module_fills_another():
    one, other = (FourBitLinear(random_weight((24, 64), "nf4", True), torch.randn(24)) for _ in range(2))
    assert not torch.equal(one.four_bit.dequantise(), other.four_bit.dequantise())
    other.load_state_dict(one.state_dict())
    assert same_bits(one.four_bit.dequantise(), other.four_bit.dequantise())
    assert other.to("meta").four_bit.dequantise().shape == (24, 64)


@pytest.mark.parametrize(("nested", "most"), [(False, 0.2815), (True, 0.2625)])
def test_memory(nested, most):
    """Half a byte and 1/16 or 1/64 of a byte per value, against two of bfloat16; the issue asks for 0.35."""
    weight = random_weight((512, 512), "nf4", nested)
    layer = FourBitLinear(weight)
    layer(torch.randn(3, 512))
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in layer.state_dict().values()}
    attributes = [value for value in vars(layer).values() if isinstance(value, torch.Tensor)]
    assert sum(held.values()) == weight.num_bytes == sum(t.nbytes for t in layer.buffers())
    assert weight.num_bytes / (512 * 512 * 2) <= most < 0.35
    assert attributes == []
    assert all(tensor.is_meta for tensor in layer._layout.tensors().values())


ONE_GRAPH = """
import torch
from bytelm.nn.four_bit import FourBitLinear, FourBitWeight, NestedScales, code_book
packed, codes = (torch.randint(0, 256, (n,), dtype=torch.uint8) for n in (24 * 32, 24))
nested = NestedScales(codes, torch.rand(1), torch.rand(256), 0.5, 256)
for scales in (torch.rand(24), nested):
    weight = FourBitWeight(packed, scales, code_book("nf4"), 64, (24, 64), "nf4", torch.float16)
    layer, x = FourBitLinear(weight, torch.randn(24)), torch.randn(2, 64)
    assert torch.equal(torch.compile(layer, backend="eager", fullgraph=True)(x), layer(x))
"""


def test_linear_is_one_graph():
    """In a process of its own: the checks of shapes in this one cannot be traced."""
    done = subprocess.run([sys.executable, "-c", ONE_GRAPH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("group", [None, 256, 64])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_kernels_of_bitsandbytes_give_the_same(plain_bitsandbytes, quant_type, group):
    weight = random_weight((48, 512), quant_type, group is not None)
    if group == 64:
        scales = weight.scales
        scales = NestedScales(scales.codes, torch.rand(6) * 0.1, scales.code, scales.offset, 64)
        weight = FourBitWeight(weight.packed, scales, weight.code, 64, (48, 512), quant_type, torch.float16)
    layers = [kind(weight, torch.full((48,), 0.5)) for kind in (FourBitLinear, KernelFourBitLinear)]
    x = torch.randn(2, 3, 512)
    ours, theirs = (layer(x) for layer in layers)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    x.requires_grad_()
    layers[1](x).sum().backward()
    expected = functional.linear(torch.ones(2, 3, 48), weight.dequantise(torch.float32).T.contiguous())
    torch.testing.assert_close(x.grad, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("width", "blocksize"), [(48, 64), (64, 128), (96, 64), (320, 256)])
def test_kernels_are_not_asked_for_rows_that_they_misread(width, blocksize):
    pytest.importorskip("bitsandbytes")
    weight, x = random_weight((24, width), "nf4", False, blocksize), torch.randn(2, width)
    assert torch.equal(KernelFourBitLinear(weight)(x), FourBitLinear(weight)(x))


def test_kernels_without_bitsandbytes(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    weight = random_weight((4, 64), "nf4", False)
    with pytest.raises(ConfigError, match=r"^bitsandbytes: cannot be imported .*bytelm\[quant\]$"):
        KernelFourBitLinear(weight)
    FourBitLinear(weight)(torch.randn(1, 64))


def test_fused_layers_have_the_outputs_of_each():
    query, value = (FourBitLinear(random_weight((n, 20), "nf4", True)) for n in (6, 3))
    plain = nn.Linear(20, 5)
    x = torch.randn(2, 20)
    outputs = FourBitFusedLinear([query, plain, value], (11, 1, 2))(x)
    assert [tuple(y.shape) for y in outputs] == [(2, 11), (2, 1), (2, 2)]
    expected = torch.cat([layer(x) for layer in (query, plain, value)], dim=-1)
    assert torch.equal(torch.cat(outputs, dim=-1), expected)


@pytest.mark.usefixtures("plain_bitsandbytes")
@pytest.mark.parametrize("kind", [FourBitLinear, KernelFourBitLinear])
def test_reordered_outputs_are_those_of_the_reordered_weight(kind):
    """Rows of 50 values: blocks of 64 cross them."""
    weight, bias, order = random_weight((24, 50), "nf4", True), torch.randn(24), torch.randperm(24)
    layer, x = ReorderedLinear(kind(weight, bias), order), torch.randn(3, 50)
    expected = functional.linear(x, weight.dequantise(torch.float32)[order], bias[order])
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert layer.half().order.dtype == torch.int64

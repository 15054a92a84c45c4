import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bytelm.errors import CheckpointError
from bytelm.hub.four_bit_format import four_bit_names, read_four_bit
from bytelm.nn.four_bit import FourBitLinear, NestedScales, code_book

WEIGHT = "layers.0.up.weight"
STATE = f"{WEIGHT}.quant_state.bitsandbytes__nf4"
LINEARS = [f"transformer.h.0.{n}" for n in ("attn.k_proj", "attn.out_proj", "attn.q_proj", "attn.v_proj")]
LINEARS += ["transformer.h.0.mlp.fc_in", "transformer.h.0.mlp.fc_out"]
PARTS = ["absmax", "quant_map"]
NESTED_PARTS = ["nested_absmax", "nested_quant_map"]


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def as_tensor(state):
    text = state if isinstance(state, bytes) else json.dumps(state).encode()
    return torch.tensor(list(text), dtype=torch.uint8)


def small_state(nested):
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [300, 65]}
    return state | ({"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05} if nested else {})


def small_file(nested):
    """The tensors of one weight of 300 rows and 65 columns: 19,500 values, 305 blocks, the last one short."""
    tensors = {
        WEIGHT: torch.randint(0, 256, (9_750, 1), dtype=torch.uint8),
        f"{WEIGHT}.absmax": torch.rand(305),
        f"{WEIGHT}.quant_map": code_book("nf4"),
        STATE: as_tensor(small_state(nested)),
    }
    if nested:
        tensors[f"{WEIGHT}.absmax"] = torch.randint(0, 256, (305,), dtype=torch.uint8)
        tensors[f"{WEIGHT}.nested_absmax"] = torch.rand(2)
        tensors[f"{WEIGHT}.nested_quant_map"] = torch.linspace(-1, 1, 256)
    return tensors


def read_weight(tensors):
    return read_four_bit(WEIGHT, tensors, tensors.__getitem__, "a.safetensors")


def refusal(tensors):
    """What is said of a file that is refused."""
    with pytest.raises(CheckpointError) as caught:
        read_weight(tensors)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"a.safetensors: tensor {WEIGHT}")
    return str(caught.value)


def write_gptj(folder, quant_type, nested, storage, dtype, monkeypatch):
    """A small GPT-J, quantised and saved by transformers and bitsandbytes; the model as they hold it."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("bitsandbytes")
    # Only asked for; what it does is for models on several devices.
    monkeypatch.setattr("transformers.quantizers.quantizer_bnb_4bit.is_accelerate_available", lambda: True)
    sizes = {"n_positions": 32, "n_embd": 44, "n_layer": 1, "n_head": 4, "rotary_dim": 4, "n_inner": 100}
    config = transformers.GPTJConfig(vocab_size=97, bos_token_id=96, eos_token_id=96, **sizes)
    transformers.GPTJForCausalLM(config).to(dtype).save_pretrained(folder / "plain")
    model = transformers.GPTJForCausalLM.from_pretrained(
        folder / "plain",
        dtype=dtype,
        quantization_config=transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quant_type,
            bnb_4bit_use_double_quant=nested,
            bnb_4bit_quant_storage=storage,
        ),
    )
    model.save_pretrained(folder / "small")
    return model


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("quant_type", "storage", "dtype"),
    [
        ("nf4", "uint8", torch.float16),
        ("fp4", "uint8", torch.float16),
        ("nf4", "bfloat16", torch.bfloat16),
        ("fp4", "float32", torch.float32),
    ],
)
@pytest.mark.usefixtures("plain_bitsandbytes")
def test_a_file_of_transformers_and_bitsandbytes(tmp_path, quant_type, nested, storage, dtype, monkeypatch):
    model = write_gptj(tmp_path, quant_type, nested, storage, dtype, monkeypatch)
    import bitsandbytes

    path = tmp_path / "small" / "model.safetensors"
    with safe_open(path, "pt") as file:
        names = file.keys()
        groups = four_bit_names(names)
        assert list(groups) == [f"{name}.weight" for name in LINEARS]
        ends = sorted([*PARTS, *(NESTED_PARTS if nested else []), f"quant_state.bitsandbytes__{quant_type}"])
        for name, parts in groups.items():
            assert parts == [name, *(f"{name}.{end}" for end in ends)]
            weight = read_four_bit(name, parts, file.get_tensor, str(path))
            assert same_bits(weight.dequantise(), read_four_bit(name, names, file.get_tensor, "").dequantise())
            theirs = model.get_parameter(name)
            expected = bitsandbytes.functional.dequantize_4bit(theirs.data, theirs.quant_state)
            assert same_bits(weight.dequantise() + 0.0, expected + 0.0)
            for other in (torch.float32, torch.float16, torch.bfloat16):
                theirs.quant_state.dtype = other
                expected = bitsandbytes.functional.dequantize_4bit(theirs.data, theirs.quant_state)
                assert same_bits(weight.dequantise(other) + 0.0, expected + 0.0)
            assert isinstance(weight.scales, NestedScales) is nested
        left = set(names) - {part for parts in groups.values() for part in parts}
    assert {"lm_head.weight", "transformer.wte.weight", "transformer.h.0.mlp.fc_in.bias"} < left


@pytest.mark.usefixtures("plain_bitsandbytes")
def test_a_layer_that_was_read_gives_what_theirs_gives(tmp_path, monkeypatch):
    model = write_gptj(tmp_path, "nf4", True, "uint8", torch.float32, monkeypatch)
    tensors = load_file(tmp_path / "small" / "model.safetensors")
    x = torch.randn(2, 5, 44)
    name = "transformer.h.0.mlp.fc_in"
    weight = read_four_bit(f"{name}.weight", tensors, tensors.__getitem__, "")
    layer = FourBitLinear(weight, tensors[f"{name}.bias"])
    torch.testing.assert_close(layer(x), model.get_submodule(name)(x), atol=1e-5, rtol=0)


def test_reading_needs_neither_library(tmp_path):
    save_file(small_file(True), tmp_path / "a.safetensors")
    script = f"""
import sys
for name in ("bitsandbytes", "transformers", "accelerate"):
    sys.modules[name] = None
from safetensors.torch import load_file
from bytelm.hub.four_bit_format import read_four_bit
tensors = load_file(sys.argv[1])
print(read_four_bit({WEIGHT!r}, tensors, tensors.__getitem__, "").dequantise().shape)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "torch.Size([300, 65])", done.stderr


def test_names_of_groups():
    names = ["a.weight", "a.bias", "b.c.weight.absmax", "b.c.weight", "d.weight.quant_state.bitsandbytes__int3"]
    names += ["absmax", "e.absmax", "weight.quant_map", "f.weight.SCB", "g.weight.quant_state", "h.weight.scales"]
    assert four_bit_names(names) == {
        "b.c.weight": ["b.c.weight", "b.c.weight.absmax"],
        "d.weight": ["d.weight", "d.weight.quant_state.bitsandbytes__int3"],
        "g.weight": ["g.weight", "g.weight.quant_state"],
    }
    assert four_bit_names([]) == {}


@pytest.mark.parametrize("nested", [False, True])
def test_a_good_file_reads(nested):
    tensors = small_file(nested)
    weight = read_weight(tensors)
    assert (weight.shape, weight.blocksize, weight.quant_type) == ((300, 65), 64, "nf4")
    assert weight.dequantise().dtype == torch.bfloat16
    assert weight.packed.data_ptr() == tensors[WEIGHT].data_ptr()
    if nested:
        assert (weight.scales.offset, weight.scales.blocksize) == (0.05, 256)
    assert torch.equal(weight.code, code_book("nf4"))


def test_scales_in_half_precision_are_widened():
    tensors = small_file(False)
    tensors[f"{WEIGHT}.absmax"] = tensors[f"{WEIGHT}.absmax"].half()
    assert same_bits(read_weight(tensors).scales, tensors[f"{WEIGHT}.absmax"].float())


@pytest.mark.parametrize("nested", [False, True])
def test_every_missing_part_is_named(nested):
    for name in small_file(nested):
        tensors = small_file(nested)
        del tensors[name]
        expected = f"{STATE} (or …fp4) is missing" if name == STATE else f"{name} is missing"
        assert refusal(tensors) == f"a.safetensors: tensor {expected}"


SIZES = {WEIGHT: 9_750, f"{WEIGHT}.absmax": 305, f"{WEIGHT}.nested_absmax": 2}


@pytest.mark.parametrize(("nested", "name"), [(n, name) for n in (False, True) for name in [*SIZES][: 3 if n else 2]])
def test_sizes_that_do_not_fit_the_shape(name, nested):
    expected = SIZES[name]
    for change in (lambda t: t[:-1], lambda t: torch.cat([t, t[:1]]), lambda t: t[:0]):
        tensors = small_file(nested)
        tensors[name] = change(tensors[name])
        what = "bytes" if name == WEIGHT else "scales"
        message = f"tensor {name} has {len(tensors[name])} {what}, expected {expected} for shape [300, 65]"
        assert refusal(tensors) == f"a.safetensors: {message}"


@pytest.mark.parametrize("shape", [[300, 66], [300, 64], [65], [300, 65, 2], [10**30, 10**30]])
def test_shapes_that_do_not_fit_the_bytes(shape):
    tensors = small_file(False) | {STATE: as_tensor(small_state(False) | {"shape": shape})}
    assert f"tensor {WEIGHT} has 9750 bytes, expected " in refusal(tensors)


@pytest.mark.parametrize("end", ["int4", "NF4", "nf4.more", ""])
def test_an_unknown_quant_type(end):
    tensors = small_file(False)
    tensors[f"{WEIGHT}.quant_state.bitsandbytes__{end}"] = tensors.pop(STATE)
    assert refusal(tensors).endswith(f"bitsandbytes__{end} is of an unknown quant type, expected one of nf4, fp4")


def test_two_quant_states():
    tensors = small_file(False)
    tensors[STATE.replace("nf4", "fp4")] = tensors[STATE]
    assert refusal(tensors).endswith("expected one quant state")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not readable as JSON: "),
        (b"{", "is not readable as JSON: "),
        (b'{"quant_type": "nf4"', "is not readable as JSON: "),
        (b"\xff\x00\xfe", "is not readable as JSON: "),
        (b"[" * 200_000, "is not readable as JSON: "),
        (b"[1]", "holds a list, expected a JSON object"),
        (torch.zeros(8), "is not readable as JSON: found torch.float32, expected bytes"),
    ],
    ids=["empty", "open", "cut", "not text", "deep", "list", "floats"],
)
def test_a_quant_state_that_is_no_json_object(content, message):
    tensors = small_file(False)
    tensors[STATE] = as_tensor(content) if isinstance(content, bytes) else content
    assert f"tensor {STATE} {message}" in refusal(tensors)


NO_SIZES = (None, 0, -64, True, 64.0, "64", [64])
ALTERED = [
    *(("blocksize", value, "expected 32 or 64 or 128") for value in (*NO_SIZES, 16, 63, 96, 8192)),
    *(("dtype", value, "expected float32 or float16 or bfloat16") for value in (None, "float64", "uint8", 16)),
    *(("quant_type", value, "expected nf4") for value in (None, "fp4", "int4")),
    *(("shape", value, "expected a list of positive numbers") for value in (None, [], 9, [300, 0], [300, -65])),
    *(("shape", value, "expected a list of positive numbers") for value in ([300, 65.0], [True, 65], "300x65")),
]
ALTERED_NESTED = [
    *(("nested_blocksize", value, "expected a positive number") for value in NO_SIZES),
    *(("nested_offset", value, "expected a finite number") for value in (None, "0", True, float("nan"), float("inf"))),
    *(("nested_dtype", value, "expected float32") for value in (None, "float16")),
]


@pytest.mark.parametrize(
    ("nested", "field", "value", "expected"),
    [(False, *case) for case in ALTERED] + [(True, *case) for case in ALTERED + ALTERED_NESTED],
)
def test_altered_fields(nested, field, value, expected):
    """A field that is wrong, or not there at all (None)."""
    state = small_state(nested) | {field: value}
    if value is None:
        del state[field]
    said = refusal(small_file(nested) | {STATE: as_tensor(state)})
    assert said.startswith(f"a.safetensors: tensor {STATE} has {field} {value!r}, {expected}")


@pytest.mark.parametrize(
    ("end", "tensor", "message"),
    [
        (".absmax", torch.rand(305), "is torch.float32, expected torch.uint8 with nested scales"),
        (".nested_absmax", torch.ones(2, dtype=torch.int64), "is torch.int64, expected floats"),
        (".nested_absmax", torch.tensor([1, torch.nan]), "holds values that are not finite"),
        (".nested_quant_map", torch.rand(16), "has 16 values, expected 256"),
        (".nested_quant_map", torch.full((256,), torch.inf), "holds values that are not finite"),
        (".quant_map", torch.rand(15), "has 15 values, expected 16"),
        (".quant_map", code_book("fp4"), "is not the code book of nf4"),
        (".quant_map", code_book("nf4") + 2e-4, "is not the code book of nf4"),
        (".quant_map", torch.arange(16), "is torch.int64, expected floats"),
    ],
)
def test_altered_parts_of_nested_weights(end, tensor, message):
    assert refusal(small_file(True) | {WEIGHT + end: tensor}) == f"a.safetensors: tensor {WEIGHT}{end} {message}"


def test_altered_scales():
    name = f"{WEIGHT}.absmax"
    for tensor, message in [
        (torch.zeros(305, dtype=torch.uint8), "is torch.uint8, expected floats"),
        (torch.full((305,), torch.nan), "holds values that are not finite"),
    ]:
        assert refusal(small_file(False) | {name: tensor}) == f"a.safetensors: tensor {name} {message}"

"""Matrices in int8 on disk: what is loaded is the rounded model, to the bit, in floats."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import tiny_config, tiny_model

import bytelm
from bytelm.encoding import get_encoding
from bytelm.errors import CheckpointError
from bytelm.hub.checkpoint import load_checkpoint, save_checkpoint
from bytelm.hub.compact import pack, unpack
from bytelm.model.config import NgramConfig
from bytelm.model.ends import NextPatchConfig
from bytelm.nn.int8_rows import restore_rows, round_rows
from bytelm.nn.ngram import ngram_keys


@pytest.fixture(scope="module")
def model():
    return tiny_model("chained", True, next_patch=NextPatchConfig(inner=24))


@pytest.fixture
def folder(model, tmp_path):
    save_checkpoint(tmp_path / "compact", model, get_encoding("dense-ja"), int8=True)
    return tmp_path / "compact"


def test_rows_by_hand():
    codes, scales = round_rows(torch.tensor([[2.54, -1.0, 0.009], [0.0, 0.0, 0.0], [-1e-3, 5e-4, 1e-3]]))
    assert codes.tolist() == [[127, -50, 0], [0, 0, 0], [-127, 64, 127]]
    torch.testing.assert_close(scales, torch.tensor([0.02, 0.0, 1e-3 / 127]))
    assert restore_rows(codes, scales)[1].tolist() == [0, 0, 0]


def test_what_is_loaded_is_the_rounded_model_to_the_bit(model, folder):
    weights, expected = load_checkpoint(folder).model.state_dict(), unpack(pack(model.state_dict()))
    assert weights.keys() == expected.keys() == model.state_dict().keys()
    for name, weight in weights.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, expected[name])
        original = model.state_dict()[name]
        if weight.dim() == 1:
            assert torch.equal(weight, original)
        else:
            step = original.abs().amax(-1, keepdim=True) / 127
            assert ((weight - original).abs() <= 0.5001 * step).all()
            assert not torch.equal(weight, original)


def test_rounding_twice_changes_no_code(model):
    once = pack(model.state_dict())
    twice = pack(unpack(once))
    assert once.keys() == twice.keys()
    for name, tensor in once.items():
        torch.testing.assert_close(tensor, twice[name], rtol=1e-6 if name.endswith(".scales") else 0, atol=0)


def test_it_takes_a_quarter_of_the_space_and_is_a_model_as_any(model, folder, tmp_path):
    save_checkpoint(tmp_path / "plain", model, get_encoding("dense-ja"))
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "plain")]
    rows = sum(len(p) for p in model.parameters() if p.dim() == 2)
    numbers = sum(p.numel() for p in model.parameters())
    assert sizes[1] - sizes[0] == pytest.approx(3 * numbers - 4 * rows, rel=0.1)
    compact, plain = bytelm.load(folder), bytelm.load(tmp_path / "plain")
    text = "山の朝は静かだ。"
    assert compact.score([text]).total.nats == pytest.approx(plain.score([text]).total.nats, rel=0.05)
    assert compact.score([text]).total.nats == bytelm.load(folder).score([text]).total.nats
    outputs = [compact.generate(["山"], max_new_tokens=12, draft=draft).ids[0] for draft in ("none", "heads")]
    assert outputs[0].tolist() == outputs[1].tolist()


def test_a_model_in_bfloat16_is_float32_after_it(tmp_path):
    model = tiny_model().to(torch.bfloat16)
    save_checkpoint(tmp_path / "m", model, get_encoding("utf8"), int8=True)
    assert {p.dtype for p in load_checkpoint(tmp_path / "m").model.parameters()} == {torch.float32}
    save_checkpoint(tmp_path / "m", tiny_model(), get_encoding("utf8"))  # replaces it by another kind
    assert json.loads((tmp_path / "m" / "config.json").read_text())["format_version"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("norm.weight"), "parameter norm.weight is missing"),
        (
            lambda t: t.pop("merger.projection.weight.scales"),
            "merger.projection.weight is torch.int8, expected torch.float32",
        ),
        (lambda t: t.update(other=torch.zeros(2)), "parameter other is not part"),
        (lambda t: t.pop("merger.projection.weight"), "parameter merger.projection.weight is missing"),
        (lambda t: t.update({"merger.projection.weight.scales": torch.zeros(7)}), "scales of merger.projection.weight"),
    ],
)
def test_a_damaged_file_is_refused_by_name(folder, change, message):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


def test_rows_of_four_bits_by_hand():
    rows = torch.tensor([[0.7, -0.2, 0.04, -0.7], [0.0, 0.0, 0.0, 0.0]])
    packed = pack({"t": rows, "m": rows, "keys": torch.tensor([3, -4], dtype=torch.int32)}, {"t"})
    assert packed["t"].tolist() == [[15 | 8 << 4, 6 | 1 << 4], [8 | 8 << 4, 8 | 8 << 4]]
    assert packed["keys"].dtype == torch.int32
    found = unpack(packed)
    torch.testing.assert_close(found["t"], torch.tensor([[0.7, -0.2, 0.0, -0.7], [0.0, 0.0, 0.0, 0.0]]))
    assert found["keys"].tolist() == [3, -4]


@pytest.mark.parametrize("row_width", [None, 8, 7])
def test_tables_in_four_bits_take_an_eighth_of_the_space(row_width, tmp_path):
    tables = NgramConfig(orders=(2, 3), rows=509, row_width=row_width, chosen=True)
    heads = dataclasses.replace(tiny_config("chained", True).heads, tables=tables, mixed=True)
    model = tiny_model("chained", heads=heads)
    model.heads.tables.choose(ngram_keys(torch.cartesian_prod(torch.arange(30), torch.arange(30))))
    for name, four_bit in (("eight", False), ("four", True)):
        save_checkpoint(tmp_path / name, model, get_encoding("dense-ja"), int8=True, four_bit_tables=four_bit)
    loaded = load_checkpoint(tmp_path / "four").model
    found, expected = loaded.state_dict(), model.state_dict()
    assert torch.equal(found["heads.tables.keys_R"], expected["heads.tables.keys_R"])
    table = expected["heads.tables.table.weight"]
    step = table.abs().amax(-1, keepdim=True) / (127 if row_width == 7 else 7)
    assert ((found["heads.tables.table.weight"] - table).abs() <= 0.5001 * step).all()
    eight, four = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("eight", "four"))
    assert eight - four == pytest.approx(0 if row_width == 7 else table.numel() / 2, abs=16)
    others = load_checkpoint(tmp_path / "eight").model.state_dict()
    assert all(torch.equal(found[name], others[name]) for name in found if name != "heads.tables.table.weight")


def test_a_table_with_narrow_rows(tmp_path):
    parts = {
        name: getattr(tiny_config("chained", True), name).from_dict(
            {
                **getattr(tiny_config("chained", True), name).to_dict(),
                "tables": {"orders": [2, 3], "rows": 37, "row_width": 6},
            }
        )
        for name in ("merger", "heads")
    }
    model = tiny_model("chained", True, **parts)
    save_checkpoint(tmp_path / "m", model, get_encoding("dense-ja"), int8=True)
    loaded = load_checkpoint(tmp_path / "m").model
    assert loaded.config == model.config
    assert loaded.state_dict()["heads.tables.table.weight"].shape == (74, 6)

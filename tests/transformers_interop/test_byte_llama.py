"""Checkpoints of bytes in LLaMA's layout: a table of guesses, and a file that says what is different."""

import json

import pytest
import torch
import yaml
from support import tiny_model

import bytelm
from bytelm.cli import main
from bytelm.errors import CheckpointError, ConfigError
from bytelm.hub.byte_llama import Renames, byte_llama, import_byte_llama, read_renames
from bytelm.hub.import_weights import export_tensors
from bytelm.hub.weights import export_weights

NONE = Renames()
OTHER_NAMES = {
    "merger.projection.weight": ("model.byte_merger.proj.weight",),
    "heads.unembedding.weight": (
        "heads.first.weight",
        "heads.second.weight",
        "heads.third.weight",
        "heads.fourth.weight",
    ),
    "blocks.{i}.attention.query_key_value.weight": ("model.layers.{i}.attn.qkv.weight",),
}


@pytest.fixture(scope="module", name="model")
def fixture_model():
    return tiny_model("independent")


def write(folder, model, renames=NONE, **changes):
    """A checkpoint of this layout."""
    config, position = model.config, model.config.position
    theirs = {
        "model_type": "llama",
        "hidden_size": config.width,
        "intermediate_size": config.feedforward.inner,
        "num_hidden_layers": config.num_blocks,
        "num_attention_heads": config.attention.num_heads,
        "num_key_value_heads": config.attention.num_kv_heads,
        "max_position_embeddings": config.context // config.patch,
        "rms_norm_eps": config.norm.eps,
        "rope_theta": position.base,
        "hidden_act": "silu",
        "vocab_size": 256,
        **changes,
    }
    tensors = dict(export_tensors(model, byte_llama(config.patch, renames)))
    export_weights(folder, tensors)
    (folder / "config.json").write_text(json.dumps(theirs))
    return tensors


@pytest.mark.parametrize("renames", [Renames(), Renames(OTHER_NAMES)], ids=["guesses", "renamed"])
def test_out_and_in_again_to_the_bit(model, tmp_path, renames):
    write(tmp_path, model, renames)
    found = import_byte_llama(tmp_path, renames)
    assert found.config == model.config
    assert found.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in found.state_dict().items())


def test_heads_that_are_one_tensor(model, tmp_path):
    renames = Renames({"heads.unembedding.weight": ("lm_head.weight",)})
    tensors = write(tmp_path, model, renames)
    assert tensors["lm_head.weight"].shape == (4 * 256, model.config.width)
    assert torch.equal(import_byte_llama(tmp_path, renames).heads.unembedding.weight, model.heads.unembedding.weight)


def test_the_config_may_be_corrected(model, tmp_path):
    write(tmp_path, model)
    found = import_byte_llama(tmp_path, Renames(config={"context": 512, "position": {"base": 5e5}})).config
    assert (found.context, found.position.base) == (512, 5e5)


def test_what_is_unmatched_is_told_both_ways(model, tmp_path):
    write(tmp_path, model, Renames({**OTHER_NAMES, "merger.projection.weight": ("model.merger.weight",)}))
    with pytest.raises(CheckpointError) as caught:
        import_byte_llama(tmp_path, Renames())
    message = str(caught.value)
    assert "\n" not in message
    theirs, ours = message.split("; parameters that no tensor fills")
    for name in ("heads.first.weight", "heads.fourth.weight", "model.layers.{i}.attn.qkv.weight"):
        assert name in theirs
    assert "heads.unembedding.weight (lm_heads.0.weight, lm_heads.1.weight" in ours
    assert "blocks.{i}.attention.query_key_value.weight (model.layers.{i}.self_attn.q_proj.weight" in ours


def test_tensors_that_tell_the_sizes_must_be_named(model, tmp_path):
    write(tmp_path, model, Renames(OTHER_NAMES))
    with pytest.raises(CheckpointError, match=r"tensor model\.merger\.weight is missing.*model\.byte_merger"):
        import_byte_llama(tmp_path, Renames())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("tensor: {}", "found 'tensor', expected some of tensors, config, encoding"),
        ("[1]", "expected some of"),
        ("tensors: {a: 3}", r"tensors\.a: found 3"),
        ("tensors: [a]", "expected mappings"),
        ("encoding: 3", "encoding: found 3"),
        ("a: [", "not YAML"),
    ],
)
def test_files_of_renames_that_are_wrong(tmp_path, text, match):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=match) as caught:
        read_renames(tmp_path / "r.yaml")
    assert "\n" not in str(caught.value)


def test_a_line_that_the_table_has_not():
    with pytest.raises(ConfigError, match=r"tensors\.merger\.weight: found no such line"):
        byte_llama(4, Renames({"merger.weight": ("x",)}))


def test_the_command_imports_and_exports(model, tmp_path, capsys):
    write(tmp_path / "theirs", model, Renames(OTHER_NAMES))
    renames = {"encoding": "dense-ja", "tensors": {name: list(names) for name, names in OTHER_NAMES.items()}}
    (tmp_path / "renames.yaml").write_text(yaml.safe_dump(renames))
    arguments = ["--to", "bytelm", "--renames", str(tmp_path / "renames.yaml"), "--json"]
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "ours"), *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["to"], result["encoding"]) == ("bytelm", "dense-ja")
    assert result["parameters"] == model.config.num_parameters()
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "hf"), "--to", "hf"]) == 0
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "again"), "--to", "bytelm"]) == 0
    found = bytelm.load(tmp_path / "again")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in found.model.state_dict().items())
    for folder in ("ours", "again"):
        assert (tmp_path / folder / "model.safetensors").read_bytes() == (
            tmp_path / "ours" / "model.safetensors"
        ).read_bytes()


def test_what_the_command_refuses(model, tmp_path, capsys):
    write(tmp_path / "theirs", model)
    (tmp_path / "empty.yaml").write_text("{}")
    refused = {
        ("theirs", "out", "--to", "onnx"): "--to: found 'onnx', expected hf or bytelm",
        ("theirs", "out", "--to", "bytelm", "--renames", str(tmp_path / "empty.yaml")): "encoding: missing",
        ("nothing", "out", "--to", "hf"): "no such folder",
    }
    for (source, out, *rest), message in refused.items():
        assert main(["convert", str(tmp_path / source), str(tmp_path / out), *rest]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1

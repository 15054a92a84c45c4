import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import KINDS, tiny_model

import bytelm
from bytelm.encoding import get_encoding
from bytelm.errors import CheckpointError
from bytelm.hub import checkpoint as checkpoint_module
from bytelm.hub.checkpoint import load_checkpoint, save_checkpoint
from bytelm.nn import native


def same_weights(model, other):
    mine, theirs = model.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


@pytest.fixture(scope="module")
def model():
    return tiny_model("chained", True)


@pytest.fixture
def folder(model, tmp_path):
    save_checkpoint(tmp_path / "model", model, get_encoding("dense-ja"), {"step": 7})
    return tmp_path / "model"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_round_trip_to_the_bit(kind, tmp_path):
    model = tiny_model(*kind)
    folder = tmp_path / "deep" / "folder"
    save_checkpoint(folder, model, get_encoding("dense-ja"))
    loaded = bytelm.load(folder)
    assert same_weights(loaded.model, model)
    assert loaded.config == model.config
    assert loaded.law == loaded.laws[0] == ("product" if kind[0] == "independent" else "chain")
    assert not loaded.model.training
    assert {p.name for p in folder.iterdir()} == {"config.json", "encoding.json", "model.safetensors"}
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]
    windows = torch.randint(0, 256, (1, 5, 4))
    assert torch.equal(load_checkpoint(folder).model(windows), model(windows))
    torch.testing.assert_close(loaded.model(windows), model(windows))  # other memory layout, other rounding


@pytest.mark.parametrize("name", ["utf8", "utf16", "utf32", "ranked2", "dense-ja"])
def test_every_encoding_is_rebuilt(name, model, tmp_path):
    encoding = get_encoding(name)
    save_checkpoint(tmp_path / "m", model, encoding)
    loaded = bytelm.load(tmp_path / "m").tokenizer.encoding
    assert (loaded.name, loaded.digest) == (name, encoding.digest)
    assert loaded.decode(encoding.encode("海と空🌊")) == "海と空🌊"


def test_bfloat16_weights_stay_bfloat16(tmp_path):
    model = tiny_model().to(torch.bfloat16)
    save_checkpoint(tmp_path / "m", model, get_encoding("utf8"))
    loaded = bytelm.load(tmp_path / "m")
    assert same_weights(loaded.model, model)
    assert loaded.generate(["a"], max_new_tokens=6).ids[0].shape == (6,)


def edit_json(path, change):
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def refused(folder, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    refused(tmp_path / "none", r"none: no such folder, expected one with config\.json")


@pytest.mark.parametrize("name", ["config.json", "encoding.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refused(folder, rf"{name}: no such file")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.update(format_version=5), r"config\.json: format version 5, expected 1 to 4 \(written by bytelm "),
        (lambda d: d.pop("format_version"), r"config\.json: format version None, expected 1 to 4"),
        (lambda d: d.update(format="other"), r"config\.json: format 'other', expected 'bytelm'"),
        (lambda d: d["model"].update(width="wide"), r"model\.width: found 'wide', expected int"),
        (lambda d: d["model"]["attention"].update(heads=3), r"model\.attention\.heads: unknown field"),
        (lambda d: d.pop("model"), r"model\.width: missing"),
        (lambda d: d.update(model=[1]), r"model: found \[1\], expected a mapping"),
        (lambda d: d["encoding"].update(digest="0" * 64), r"encoding\.json: digest .*…, expected 0000000000000000…"),
        (lambda d: d.update(encoding="dense-ja"), r"encoding\.json: digest .*, expected None"),
        (lambda d: d["model"].update(num_blocks=3), r"model\.safetensors: parameter blocks\.2\..* is missing"),
        (
            lambda d: d["model"]["feedforward"].update(inner=50),
            r"\.feedforward\..*\.weight has shape \[.*48.*\], exp.*50",
        ),
    ],
)
def test_an_altered_config_is_refused(folder, change, match):
    edit_json(folder / "config.json", change)
    refused(folder, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.update(ranked=d["ranked"][1:] + d["ranked"][:1]), "digest: found"),
        (lambda d: d.update(s=d["s"] + 1, c=d["c"] - 1), "4 bytes, expected at least"),
        (lambda d: d.update(s=d["s"] - 1, c=d["c"] + 1), "digest: found"),
        (lambda d: d.update(format_version=9), "found format_version 9"),
        (lambda d: d.update(family="none"), "found family 'none'"),
    ],
)
def test_an_altered_encoding_is_refused(folder, change, match):
    edit_json(folder / "encoding.json", change)
    refused(folder, match)


def test_another_encoding_is_refused(folder):
    (folder / "encoding.json").write_text(json.dumps(get_encoding("utf8").to_dict()), encoding="utf-8")
    refused(folder, r"encoding\.json: digest .*…, expected .*… of config\.json")


@pytest.mark.parametrize("name", ["config.json", "encoding.json"])
@pytest.mark.parametrize(
    ("content", "match"),
    [(b'{"format":', "not readable as JSON"), (b"\xff\xfe", "not readable"), (b"[1]", "found a list")],
)
def test_json_that_is_none(folder, name, content, match):
    (folder / name).write_bytes(content)
    refused(folder, rf"{name}: {match}")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.pop("norm.weight"), r"model\.safetensors: parameter norm\.weight is missing"),
        (lambda s: s.update(extra=torch.ones(1)), r"model\.safetensors: parameter extra is not part of the model"),
        (
            lambda s: s.update({"norm.weight": torch.ones(31)}),
            r"parameter norm\.weight has shape \[31\], expected \[32\]",
        ),
        (lambda s: s.update({"norm.weight": torch.ones(32).int()}), r"parameter norm\.weight is torch\.int32"),
        (lambda s: s.update({"norm.weight": torch.ones(32).half()}), r"parameter norm\.weight is torch\.float16"),
    ],
)
def test_other_parameters_are_refused(folder, change, match):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    refused(folder, match)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_weights_are_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, r"model\.safetensors: not a readable safetensors file")


def listing(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("name", ["save_file", "write_json"])
def test_a_failure_while_writing_leaves_the_old_checkpoint(folder, model, monkeypatch, name):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, name, full)
    with pytest.raises(CheckpointError, match=r"model: cannot be written: No space left on device"):
        save_checkpoint(folder, tiny_model(), get_encoding("utf8"))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert listing(folder.parent) == ["model"]
    assert same_weights(load_checkpoint(folder).model, model)


def test_a_failure_while_replacing_puts_the_old_checkpoint_back(folder, model, monkeypatch):
    plain = os.rename

    def fail_once(source, target):
        if str(target) == str(folder) and not str(source).endswith("old"):
            raise OSError(5, "Input/output error")
        plain(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save_checkpoint(folder, tiny_model(seed=5), get_encoding("utf8"))
    assert same_weights(load_checkpoint(folder).model, model)
    assert listing(folder.parent) == ["model"]


def test_a_new_checkpoint_replaces_the_old_one(folder):
    new = tiny_model("independent", seed=5)
    save_checkpoint(folder, new, get_encoding("utf8"))
    assert same_weights(load_checkpoint(folder).model, new)
    assert listing(folder.parent) == ["model"]


def test_a_folder_or_file_of_something_else_is_not_touched(tmp_path, model):
    (tmp_path / "notes.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"holds files but no config\.json"):
        save_checkpoint(tmp_path, model, get_encoding("utf8"))
    with pytest.raises(CheckpointError, match=r"notes\.txt: found a file, expected a folder"):
        save_checkpoint(tmp_path / "notes.txt", model, get_encoding("utf8"))
    assert listing(tmp_path) == ["notes.txt"]


def test_loads_without_lightning_and_without_pickle(folder):
    script = """
import pickle, sys
for name in ("lightning", "pytorch_lightning", "torchmetrics", "jsonargparse", "transformers"):
    sys.modules[name] = None
def refuse(*args, **kwargs):
    raise SystemExit("pickle was used")
import torch
import bytelm
bytelm.load
pickle.load = pickle.loads = torch.load = refuse
lm = bytelm.load(sys.argv[1])
assert "torch._dynamo" not in sys.modules, "torch's compiler was imported for nothing"
print(lm.generate(["朝"], max_new_tokens=5).ids[0].tolist(), lm.score(["朝"]).total.nats > 0)
"""
    code = f"import warnings; warnings.simplefilter('ignore')\n{script}"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("True")


def test_a_copied_folder_loads(folder, tmp_path, model):
    shutil.copytree(folder, tmp_path / "copy")
    assert same_weights(bytelm.load(str(tmp_path / "copy")).model, model)


SPLIT = {
    "query_key_value": lambda w: {"query": w[:32], "key": w[32:48], "value": w[48:]},
    "gate_up": lambda w: {"gate": w[:48], "up": w[48:]},
    "up": lambda w: {"state": w[:, :32], "prefix": w[:, 32:]},
}


def write_version_1(folder):
    """Layers that are fused now, in files of their own."""
    state = load_file(folder / "model.safetensors")
    for name in list(state):
        prefix, layer, _ = ("." + name).rsplit(".", 2)
        if layer in SPLIT:
            parts = SPLIT[layer](state.pop(name))
            state |= {f"{prefix[1:]}.{part}.weight": weight.contiguous() for part, weight in parts.items()}
    save_file(state, folder / "model.safetensors")
    edit_json(folder / "config.json", lambda d: d.update(format_version=1))
    return state


def test_version_1_is_read(folder, model):
    state = write_version_1(folder)
    assert {"blocks.0.attention.key.weight", "heads.prefix_mlps.0.state.weight"} < state.keys()
    assert same_weights(load_checkpoint(folder).model, model)


def test_version_1_with_a_part_missing(folder):
    state = write_version_1(folder)
    del state["blocks.1.attention.key.weight"]
    save_file(state, folder / "model.safetensors")
    refused(folder, r"parameter blocks\.1\.attention\.key\.weight is missing")


@pytest.mark.parametrize("by_core", [False, True])
def test_wide_matrices_are_read_by_columns_without_the_core(by_core, folder, model, monkeypatch):
    if by_core and native.core is None:
        pytest.skip("the core was not built")
    if not by_core:
        monkeypatch.setattr(native, "core", None)
    loaded = bytelm.load(folder).model
    weights = {n: w for n, w in loaded.named_parameters() if n.endswith(("gate_up.weight", "query_key_value.weight"))}
    assert weights
    assert all(w.stride() == ((w.shape[1], 1) if by_core else (1, w.shape[0])) for w in weights.values())
    assert same_weights(loaded, model)

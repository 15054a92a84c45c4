import json

import numpy as np
import pytest
import torch
from support import tiny_config

import bytelm
from bytelm.errors import CheckpointError
from bytelm.hf.export import export_transformers
from bytelm.hub import LanguageModel, save_checkpoint
from bytelm.model import build_model

IN_A_PROCESS = pytest.mark.parametrize(
    "lm", [pytest.param("independent", marks=pytest.mark.slow), "chained"], indirect=True
)
"""Kinds of heads where a process, or a folder, is made for each; within this process both are always tested."""


def check_usage(lm, found):
    """The script's ids are those of ``bytelm generate``, row by row, between padding."""
    newline = lm.tokenizer.encode("\n")
    expected = lm.generate(found["prompts"], max_new_tokens=48, eos_token_id=[newline.tolist()])
    pad = lm.tokenizer.encode(lm.tokenizer.pad_token, allowed_controls="all")
    opening = lm.tokenizer.opening(lm.config.patch)
    assert found["bos_ids"] == opening.tolist()
    width = len(found["inputs"][0])
    for row, prompt in enumerate(found["prompts"]):
        given = np.concatenate((opening, lm.tokenizer.encode(prompt)))
        padding = np.resize(pad, width - len(given))
        assert found["inputs"][row] == [*padding, *given]
        generated = found["outputs"][row][width:]
        assert generated[: len(expected.ids[row])] == expected.ids[row].tolist()
        assert generated[len(expected.ids[row]) :] == np.resize(pad, len(generated) - len(expected.ids[row])).tolist()
        text = found["texts"][row].replace(found["pad"], "")
        assert text.startswith(found["bos"] + prompt)
        assert not text.startswith(found["bos"] * 2)
    return expected


@IN_A_PROCESS
def test_the_usage_script_of_the_reference_gives_what_bytelm_generate_gives(lm, folder, without_bytelm, tmp_path):
    without_bytelm("usage_script.py", folder, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    expected = check_usage(lm, found)
    assert any(len(ids) == 48 for ids in expected.ids)
    for row, text in enumerate(expected.texts):
        shown = found["texts"][row].replace(found["pad"], "").removeprefix(found["bos"] + found["prompts"][row])
        assert shown.replace("<|eos|>", "") == text


@pytest.mark.slow
def test_the_usage_script_with_controls_of_several_bytes(wide, without_bytelm, tmp_path):
    lm, folder = wide
    without_bytelm("usage_script.py", folder, tmp_path / "found.json")
    check_usage(lm, json.loads((tmp_path / "found.json").read_text()))


def check_round_trip(found):
    assert found["vocab_size"] == 256
    assert found["bitwise"]
    assert found["same_ids"]
    assert found["same_logits"]
    assert found["same_text"]
    assert found["pipeline"].startswith(found["text"])
    assert len(found["pipeline"]) > len(found["text"])
    assert len(found["losses"]) == 6
    assert found["losses"][-1] < found["losses"][0]


@pytest.mark.slow
def test_saving_training_and_pipelines_without_bytelm(lm, folder, without_bytelm, tmp_path):
    pytest.importorskip("accelerate")  # which Trainer asks for
    without_bytelm("round_trip_script.py", folder, tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    check_round_trip(found)
    text = lm.generate([found["text"]], max_new_tokens=10).texts[0]
    assert found["pipeline"] == found["text"] + text
    loaded = bytelm.load(tmp_path / "saved")
    assert all(torch.equal(lm.model.state_dict()[name], t) for name, t in loaded.model.state_dict().items())


def test_bytelm_load_reads_the_folder_to_the_bit(lm, folder):
    loaded = bytelm.load(folder)
    assert loaded.config == lm.config
    assert loaded.tokenizer.digest == lm.tokenizer.digest
    expected = lm.model.state_dict()
    assert expected.keys() == loaded.model.state_dict().keys()
    assert all(torch.equal(expected[name], tensor) for name, tensor in loaded.model.state_dict().items())


@IN_A_PROCESS
def test_a_folder_is_replaced_by_another_export_and_by_nothing_else(lm, tmp_path):
    export_transformers(tmp_path / "out", lm)
    export_transformers(tmp_path / "out", lm)
    save_checkpoint(tmp_path / "ours", lm.model, lm.tokenizer.encoding)
    with pytest.raises(CheckpointError, match="format 'bytelm', expected 'bytelm-transformers'"):
        export_transformers(tmp_path / "ours", lm)


def test_alibi_models_come_back_whole(dense_tokenizer, tmp_path):
    config = tiny_config("chained").to_dict() | {"position": {"kind": "alibi", "shrink": 2.0}}
    model = build_model(type(tiny_config()).from_dict(config), 3).eval()
    export_transformers(tmp_path / "alibi", LanguageModel(model, dense_tokenizer))
    loaded = bytelm.load(tmp_path / "alibi").model
    ids = torch.randint(0, 256, (2, 5, 4))
    assert torch.equal(model(ids), loaded(ids))


@pytest.fixture(name="dense_tokenizer")
def fixture_dense_tokenizer():
    return bytelm.Tokenizer(bytelm.get_encoding("dense-ja"))

"""``bytelm fit`` on prompts and completions, from a checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

import bytelm
from bytelm.training.checkpoint_io import checkpoint_step, checkpoints

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and torch give advice

CONFIG = Path(__file__).parents[2] / "experiments" / "configs" / "instruct.yaml"
PAIRS = [("朝の海は", "静か"), ("駅前の", "パン屋"), ("雨の日", "本を読む"), ("むかし" * 20, "長い"), ("猫", "眠る。")]
AVERAGE = {"class_path": "bytelm.training.averaging.AverageWeights", "init_args": {"decay": 0.5}}
SAVE = {"class_path": "bytelm.training.save_run.SaveRun", "init_args": {"every_n_steps": 1, "keep": 99}}


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = (json.dumps({"prompt": p, "completion": c}, ensure_ascii=False) for p, c in PAIRS)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def options(model, pairs, folder):
    return [
        *("--config", CONFIG, "--model.init_from", model, "--data.pairs", pairs, "--data.valid_pairs", pairs),
        *("--data.window", 60, "--data.batch_size", 2, "--trainer.logger", "false", "--trainer.accelerator", "cpu"),
        *("--trainer.default_root_dir", folder, "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", 4),
        *("--trainer.callbacks", json.dumps([AVERAGE, SAVE])),
    ]


def test_a_run_with_an_average_goes_on_to_the_bit(run, chained_model, pairs, tmp_path, caplog):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    out = run("fit", *options(chained_model, pairs, whole), "--json")
    assert out.json["step"] == 8  # four pairs that fit, in batches of two, four times
    said = [record.getMessage() for record in caplog.records]
    assert f"{pairs}:4: a pair of " in said[0]
    assert "data.pairs: 1 of 5 pairs are left out" in said
    assert 0 < out.json["metrics"]["val/bits_per_char"] < 20
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "model")
    for path in checkpoints(cut / "checkpoints"):
        if checkpoint_step(path) > 3:
            path.unlink()
    again = run("fit", "--resume", cut, "--trainer.default_root_dir", cut, "--json").json
    assert again["step"] == 8
    assert again["metrics"] == out.json["metrics"]
    found, expected = (load_file(folder / "model" / "model.safetensors") for folder in (cut, whole))
    assert all((found[name] == expected[name]).all() for name in expected)
    before = load_file(chained_model / "model.safetensors")
    assert any((found[name] != before[name]).any() for name in before)
    assert bytelm.load(cut / "model").generate(["猫"], max_new_tokens=3).texts


def test_nothing_is_measured_where_no_pairs_are_given_for_it(run, chained_model, pairs, tmp_path):
    given = options(chained_model, pairs, tmp_path / "run")
    at = given.index("--data.valid_pairs")
    out = run("fit", *given[:at], *given[at + 2 :], "--trainer.max_epochs", 1, "--json").json
    assert out["step"] == 2
    assert not any(name.startswith("val/") for name in out["metrics"])
    assert bytelm.load(tmp_path / "run" / "model").laws


def test_what_cannot_be_trained_on_is_one_line(run, chained_model, pairs, tmp_path):
    given = options(chained_model, pairs, tmp_path / "run")
    with pairs.open("a", encoding="utf-8") as file:
        file.write('{"prompt": "あ"}\n')
    run("fit", *given).refused(f"{pairs}:6: found 'prompt', expected a JSON object with a string field 'completion'")
    run("fit", "--config", CONFIG, "--model.init_from", chained_model).refused("data.pairs: missing")
    run("fit", "--config", CONFIG, "--data.pairs", pairs).refused("config, preset and init_from")

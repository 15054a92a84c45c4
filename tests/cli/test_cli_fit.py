import json
import signal
from pathlib import Path

import pytest
import yaml

import bytelm
from bytelm.encoding import get_encoding, read_table

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and torch give advice

WINDOW = 32


@pytest.fixture
def corpus(run, documents, tmp_path):
    folder = tmp_path / "corpus"
    run("corpus", "build", documents, "--out", folder, "--encoding", "utf8")
    return folder


@pytest.fixture
def config(corpus, tiny_config, tmp_path):
    """Write a configuration with some values changed, by dotted key; returns its path."""
    plain = tiny_config.to_dict()
    tree = {
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 2,
            "val_check_interval": 2,
            "check_val_every_n_epoch": None,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 2,
            "default_root_dir": str(tmp_path),
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": str(tmp_path / "runs"), "name": "x"},
            },
        },
        "model": {"encoding": "utf8", "config": plain, "optimizer": {"warmup_steps": 1}},
        "data": {
            **{split: str(corpus) for split in ("train", "valid", "test")},
            "window": WINDOW,
            "batch_size": 2,
            "windows_per_epoch": 8,
        },
    }

    def write(**changes):
        for key, value in changes.items():
            *parents, last = key.split("__")
            node = tree
            for parent in parents:
                node = node[parent]
            if value is ...:
                del node[last]
            else:
                node[last] = value
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
        return path

    return write


def test_fit_validate_score(run, config, documents, tmp_path):
    path = config()
    outcome = run("fit", "--config", path, "--trainer.max_steps", 3, "--json")
    result = outcome.json
    assert set(result) == {"command", "run", "model", "step", "epoch", "metrics"}
    assert (result["command"], result["step"]) == ("fit", 3)
    assert outcome.out.count("\n") == 1
    assert 0 < result["metrics"]["val/bits_per_char"] < 100
    assert bytelm.load(result["model"]).tokenizer.encoding == get_encoding("utf8")
    scored = run("score", result["model"], documents, "--law", "all", "--json").json
    assert {entry["law"] for entry in scored["laws"]} == {"chain", "next"}

    checkpoint = max((tmp_path / "runs").rglob("*.ckpt"))
    measured = run("validate", "--config", path, "--ckpt_path", checkpoint, "--json").json
    assert set(measured) == {"command", "run", "metrics"}
    assert run("test", "--config", path, "--ckpt_path", checkpoint).out.count("test/bits_per_char") >= 1


def test_a_run_folder_without_being_asked_for(run, config):
    folder = Path(run("fit", "--config", config(trainer__logger=...), "--json").json["run"])
    assert folder.name == "version_0"
    names = {path.name.split(".")[0] for path in folder.iterdir()}
    assert names >= {"config", "run", "metrics", "events", "samples", "model", "checkpoints"}
    header = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"step", "train/nats_per_byte", "val/bits_per_char", "throughput/step_s"} <= set(header), header
    sample = (folder / "samples.txt").read_text(encoding="utf-8")
    assert sample.startswith("--- step 2\n日本の|")
    resumed = run("fit", "--resume", folder, "--trainer.max_steps", 4, "--json").json
    assert (resumed["run"], resumed["step"]) == (str(folder), 4)
    steps = [
        int(line.split(",")[header.index("step")]) for line in (folder / "metrics.csv").read_text().splitlines()[1:]
    ]
    assert {0, 1, 2, 3} <= set(steps)
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2


def test_fit_with_a_table_of_ones_own(run, config, documents, tmp_path):
    table = tmp_path / "mine.json"
    run("encoding", "fit", documents, "--name", "mine", "--out", table)
    run("corpus", "build", documents, "--encoding", table, "--out", tmp_path / "corpus", "--overwrite")
    result = run("fit", "--config", config(data__window=16), "--model.encoding", table, "--json").json
    assert bytelm.load(result["model"]).tokenizer.encoding.digest == read_table(table).digest
    saved = yaml.safe_load((tmp_path / "runs" / "x" / "version_0" / "config.yaml").read_text(encoding="utf-8"))
    assert saved["model"]["encoding"] == str(table)


def test_fit_the_next_patch_of_a_trained_model(run, config, corpus, chained_model, tmp_path):
    run("corpus", "build", tmp_path / "documents.jsonl", "--out", corpus, "--encoding", "dense-ja", "--overwrite")
    path = config(model__config=..., model__encoding="dense-ja", data__window=16)
    options = ("--config", path, "--model.init_from", chained_model)
    result = run("fit", *options, "--model.next_patch.inner", 8, "--model.train_only", "next_patch", "--json").json
    assert result["metrics"]["val/bits_next_patch_2"] > 0
    assert bytelm.load(result["model"]).config.next_patch.inner == 8
    run("fit", *options, "--model.next_patch.inner", 0).refused("model.next_patch.inner: found 0")
    run("fit", *options, "--model.train_only", "body").refused("model.train_only: found body", "next_patch")
    run("fit", *options, "--model.train_only", "next_patch").refused("model.train_only: found 'next_patch', expected")
    run("fit", "--config", path, "--model.init_from", tmp_path / "none").refused(f"{tmp_path / 'none'}: no such folder")


def test_fit_with_every_option_of_training(run, config):
    average = {"class_path": "bytelm.training.averaging.AverageWeights", "init_args": {"decay": 0.9}}
    optimizer = {
        "algorithm": "muon",
        "warmup_steps": 1,
        "decay_groups": [{"names": "heads.*", "weight_decay": 0.2}, {"names": "*norm*", "weight_decay": 0}],
    }
    loss = {"head_weights": [1, 0.5, 0.5, 0.25], "curriculum": 0.5, "z_loss": 1e-4}
    loss |= {"detach_heads": True, "mask_controls": True}
    path = config(trainer__callbacks=[average], model__optimizer=optimizer, model__loss=loss)
    heads = ("--model.config.heads.unembedding", "shared")
    result = run("fit", "--config", path, *heads, "--json").json
    assert result["metrics"]["train/loss"] != result["metrics"]["train/nats_per_byte"]
    assert bytelm.load(result["model"]).config.heads.unembedding == "shared"


def test_print_config_and_help(run, config):
    status, out, err = run("fit", "--config", config(), "--data.window", 16, "--print_config")
    assert (status, err) == (0, "")
    printed = yaml.safe_load(out)
    assert (printed["data"]["window"], printed["model"]["config"]["width"]) == (16, 16)
    status, out, err = run("fit", "--help")
    assert (status, err) == (0, "")
    assert "usage: bytelm" in out
    assert "--trainer.max_steps" in out
    assert "--model.optimizer.lr" in out
    assert "--data.window" in out


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--trainer.max_stepz", "3"), ("trainer.max_stepz: unknown option", "trainer.max_steps")),
        (("--trainer.max_steps", "many"), ("trainer.max_steps: found 'many', expected int",)),
        (("--trainer.precision", "9"), ("trainer.precision: found 9", "bf16-mixed")),
        (("--model.config.widht", "3"), ("model.config.widht: unknown field", "width")),
        (("--model.config.width", "wide"), ("model.config.width: found 'wide', expected int",)),
        (("--model.encoding", "sjis"), ("model.encoding: found 'sjis'", "dense-ja")),
        (("--model.encoding", "nowhere.json"), ("model.encoding: nowhere.json",)),
        (("--ckpt_path", "nowhere.ckpt"), ("nowhere.ckpt",)),
        (("--config", "nowhere.yaml"), ("nowhere.yaml",)),
        (("stray",), ("stray: unknown option",)),
        (("--model.loss.head_weights", "[1, 1]"), ("model.loss.head_weights: found 2 numbers, expected 4",)),
        (("--model.loss.curriculum", "2"), ("model.loss.curriculum: found 2", "from 0 to 1")),
        (("--model.loss.zloss", "2"), ("model.loss.zloss: unknown field", "z_loss")),
        (
            ("--model.loss.mask_controls", "true", "--model.encoding", "utf16"),
            ("model.loss.mask_controls: ", "'utf16'"),
        ),
        (("--model.optimizer.algorithm", "sgd"), ("model.optimizer.algorithm: found 'sgd'", "'muon'")),
    ],
)
def test_options_that_are_refused(run, config, options, parts):
    run("fit", "--config", config(), *options).refused(*parts)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data__windw": 3}, ("data.windw: unknown option", "data.window")),
        ({"model__config__heads__kind": "chaind"}, ("model.config.heads.kind: found 'chaind'", "chained")),
        ({"model__config__attention__num_kv_heads": 3}, ("model.config.attention.num_kv_heads: found 3",)),
        ({"model__config__width": ...}, ("model.config.width: missing",)),
        ({"model__optimizer__lr": -1.0}, ("model.optimizer.lr: found -1.0",)),
        (
            {"model__optimizer": {"decay_groups": [{"names": "headz.*", "weight_decay": 0.1}]}},
            ("model.optimizer.decay_groups[0].names: found 'headz.*'",),
        ),
        (
            {"model__optimizer": {"decay_groups": [{"names": "heads.*", "weight_decay": -0.1}]}},
            ("model.optimizer.decay_groups[0].weight_decay: found -0.1",),
        ),
        (
            {
                "trainer__callbacks": [
                    {"class_path": "bytelm.training.averaging.AverageWeights", "init_args": {"decay": 2.0}}
                ]
            },
            ("trainer.callbacks: found AverageWeights with decay 2.0",),
        ),
        ({"model__preset": "tiny"}, ("model: ", "preset 'tiny'")),
        ({"trainer__logger__class_path": "lightning.NoLogger"}, ("trainer.logger: ", "NoLogger")),
        ({"data__window": 6}, ("data.window: found 6",)),
        ({"data__window": 128}, ("data.window: found 128", "context of 64")),
        ({"data__train": ...}, ("data.train: missing",)),
        ({"data__train": "/nonexistent"}, ("/nonexistent/manifest.json",)),
        ({"model__encoding": "utf16"}, ("manifest.json", "'utf8'", "'utf16'")),
    ],
)
def test_configurations_that_are_refused(run, config, changes, parts):
    run("fit", "--config", config(**changes)).refused(*parts)


def test_files_that_are_no_configuration(run, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("trainer:\n  max_steps: 3\n :bad\n", encoding="utf-8")
    run("fit", "--config", path).refused(f"{path}:3: not YAML")
    path.write_bytes(b"trainer: \xff")
    run("fit", "--config", path).refused(str(path), "byte ff")
    path.write_text("月\n", encoding="utf-8")
    run("fit", "--config", path).refused(str(path), "mapping")


def test_number_without_a_point_is_not_blamed(run, config):
    path = config(model__config__norm={"kind": "rms"})
    path.write_text(path.read_text(encoding="utf-8").replace("kind: rms", "eps: 1e-5"), encoding="utf-8")
    run("fit", "--config", path, "--model.config.context", "long").refused("model.config.context: found 'long'")


def test_what_jsonargparse_accepts_is_not_blamed(run, config):
    options = ("--model.config.heads.kind", "independent", "--trainer.max_stepz", 3)  # heads of config.yaml are chained
    run("fit", "--config", config(), *options).refused("trainer.max_stepz: unknown option")


def test_corpus_shorter_than_a_window(run, config, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("月", encoding="utf-8")
    run("corpus", "build", short, "--out", tmp_path / "short", "--encoding", "utf8")
    path = config(data__train=str(tmp_path / "short"))
    run("fit", "--config", path).refused(str(tmp_path / "short"), "8 bytes", f"one window of {WINDOW + 4}")


def test_checkpoint_that_is_none(run, config, tmp_path):
    bad = tmp_path / "bad.ckpt"
    bad.write_text("weights")
    run("validate", "--config", config(), "--ckpt_path", bad).refused("bad.ckpt", "expected a .ckpt file")


def test_interrupt_while_training(run, config, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("bytelm.training.ByteLMModule.training_step", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    try:
        status, out, err = run("fit", "--config", config(), "--json")
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores further ones while it shuts down
    assert (status, out) == (130, "")
    assert err.splitlines()[-1] == "bytelm: interrupted"


def test_error_of_the_program_keeps_its_traceback(run, config, monkeypatch):
    def broken(*args):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("bytelm.training.ByteLMModule.training_step", broken)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run("fit", "--config", config())


def test_metrics_are_valid_json_whatever_they_are(run, config, monkeypatch):
    monkeypatch.setattr("bytelm.cli.lightning.run", lambda args: {"run": "r", "metrics": {"a": float("nan")}})
    out = run("fit", "--json").out
    assert json.loads(out) == {"command": "fit", "run": "r", "metrics": {"a": None}}

"""A model and its two controls on the shipped text, from corpora to one table."""

import json
from pathlib import Path

import pytest
import yaml

import bytelm
from bytelm.corpus import split_default_texts
from bytelm.model.config import ModelConfig
from bytelm.model.twins import next_byte_twin, token_twin
from bytelm.tokenizer import BPETokenizer

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and torch give advice

CONFIG = {
    "seed_everything": 0,
    "trainer": {
        "accelerator": "cpu",
        "max_steps": 12,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
    },
    "model": {
        "encoding": "dense-ja",
        "config": {
            "width": 32,
            "num_blocks": 2,
            "context": 512,
            "attention": {"num_heads": 2, "num_kv_heads": 1, "head_width": 16},
            "feedforward": {"inner": 64},
            "merger": {"byte_width": 16},
            "heads": {"kind": "chained", "byte_width": 16, "inner": 32},
        },
        "optimizer": {"lr": 1.0e-2, "min_lr": 1.0e-3, "warmup_steps": 5},
    },
    "data": {"window": 128, "batch_size": 4, "windows_per_epoch": 12, "valid_windows": 4},
}
VOCAB = 400


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Corpora, a BPE of the same text, and a configuration that knows nothing of twins."""
    from bytelm.cli import main

    folder = tmp_path_factory.mktemp("twins")
    train, valid = split_default_texts()
    config = json.loads(json.dumps(CONFIG))
    for name, texts in (("train", train[:80]), ("valid", valid[:12])):
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        assert main(["corpus", "build", str(folder / f"{name}.jsonl"), "--out", str(folder / name)]) == 0
        config["data"][name] = str(folder / name)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    bpe = ["tokenizer", "train", folder / "train", "--vocab-size", VOCAB, "--out", folder / "bpe"]
    assert main(list(map(str, bpe))) == 0
    return folder


def read(path):
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def tokens_per_byte(work):
    """Of the training corpus, with what stands before and after each document."""
    texts, tokenizer = read(work / "train.jsonl"), BPETokenizer.from_folder(work / "bpe")
    encoding = bytelm.get_encoding("dense-ja")
    return sum(1 + len(tokenizer.encode(t)) for t in texts) / sum(5 + len(encoding.encode(t)) for t in texts)


def fit(run, work, name, *options):
    args = ("fit", "--config", work / "config.yaml", "--trainer.default_root_dir", work / name)
    return run(*args, *options, "--json")


@pytest.fixture(scope="module")
def base():
    return ModelConfig.from_dict(CONFIG["model"]["config"])


def test_a_model_and_its_twins_are_trained_and_compared(run, work, base):
    twins = {"four": (), "byte": ("--twin", "next-byte"), "token": (f"--twin={work / 'bpe'}",)}
    bits = {}
    for name, options in twins.items():
        metrics = fit(run, work, name, *options).json["metrics"]
        bits[name] = metrics["val/bits_per_char"], metrics["val/bits_per_utf8_byte"]
    found = {name: bytelm.load(work / name / "model") for name in twins}
    assert found["four"].config == base
    assert found["byte"].config == next_byte_twin(base)
    tokens = found["token"].config.context
    assert found["token"].config == token_twin(base, VOCAB, tokens)
    assert tokens == round(512 * tokens_per_byte(work))
    texts = read(work / "valid.jsonl")
    ratio = sum(map(len, texts)) / sum(len(text.encode()) for text in texts)
    for per_char, per_byte in bits.values():
        assert 4 < per_char < 20
        assert per_byte == pytest.approx(per_char * ratio, rel=1e-5)
    models = [f"{name}={work / name / 'model'}" for name in twins]
    text = ["--data", work / "valid.jsonl", "--limit", 3, "--window", 40, "--context", 40]
    speeds = ["--prompts", 1, "--prompt-chars", 20, "--max-new-chars", 4, "--repeats", 1, "--drafts", "none"]
    result = run("compare", *models, *text, *speeds, "--json").json
    rows = {(row["model"], row["law"]): row for row in result["rows"]}
    assert rows.keys() == {("four", "chain"), ("four", "next"), ("byte", "next"), ("token", "next")}
    assert rows["byte", "next"]["positions_per_char"] == pytest.approx(4 * rows["four", "chain"]["positions_per_char"])
    assert rows["byte", "next"]["operations_per_char"] > 2 * rows["four", "chain"]["operations_per_char"]
    assert rows["token", "next"]["tokenizer"] == "bpe"
    assert {row["bits_per_char"] < 20 for row in rows.values()} == {True}
    assert {speed["model"] for speed in result["speeds"]} == set(twins)
    for name in ("byte", "token"):
        assert run("score", work / name / "model", work / "valid.jsonl", "--limit", 1, "--json").json["command"]
        assert run("generate", work / name / "model", "北の町の", "--max-new-tokens", 4, "--json").json["command"]


@pytest.mark.slow
def test_a_run_of_a_twin_goes_on_and_is_measured_from_what_it_wrote(run, work):
    out = fit(run, work, "resumed", "--twin", work / "bpe", "--trainer.max_steps=6", "--data.window", 64)
    config = yaml.safe_load((work / "resumed" / "config.yaml").read_text(encoding="utf-8"))
    assert out.json["step"] == 6
    assert config["data"]["patch"] == 1
    assert config["data"]["window"] == round(64 * tokens_per_byte(work))
    assert config["model"]["tokenizer"] == str(work / "bpe")
    fit(run, work, "whole", "--twin", work / "bpe", "--trainer.max_steps=9", "--data.window", 64)
    more = run("fit", "--resume", work / "resumed", "--trainer.max_steps", 9, "--json").json
    assert more["step"] == 9
    assert bytelm.load(work / "resumed" / "model").config == bytelm.load(work / "whole" / "model").config


def test_the_shipped_config_has_a_twin_of_tokens(run, work):
    path = Path(__file__).parents[2] / "experiments" / "configs" / "ja_small.yaml"
    data = ("--data.train", work / "train", "--data.valid", work / "valid", "--print_config")
    shown = run("fit", "--config", path, "--twin", work / "bpe", *data)
    config = yaml.safe_load(shown.out)
    assert config["model"]["config"]["heads"]["kind"] == "lm"
    assert config["model"]["config"]["width"] == 256
    assert config["model"]["optimizer"]["lr"] == 2e-3
    assert config["data"]["batch_size"] == 8


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--twin", "three-bytes"], ("--twin: found 'three-bytes'", "next-byte")),
        (["--twin", "next-byte", "--resume", "x"], ("--resume: found it with --twin",)),
        (["--twin", "next-byte", "--model.config.patch", "1"], ("patch: found 1",)),
        (["--twin", "."], ("expected a byte-level BPE tokenizer",)),
    ],
    ids=str,
)
def test_a_twin_that_cannot_be_is_one_line(run, work, options, parts):
    run("fit", "--config", work / "config.yaml", *options).refused(*parts)


def test_a_tokenizer_is_learned_from_text_or_corpora_alike(run, work, tmp_path):
    again = run(
        "tokenizer", "train", work / "train.jsonl", "--vocab-size", VOCAB, "--out", tmp_path / "b", "--json"
    ).json
    assert again["documents"] == 80
    assert (tmp_path / "b" / "tokenizer.json").read_bytes() == (work / "bpe" / "tokenizer.json").read_bytes()
    run("tokenizer", "train", work / "train.jsonl", "--out", tmp_path / "b").refused("found a tokenizer")
    run("tokenizer", "train", work / "train.jsonl", "--out", tmp_path / "c", "--vocab-size", 9).refused("vocab_size")


def test_a_model_of_tokens_without_its_tokenizer_is_refused(run, work):
    run("fit", "--config", work / "config.yaml", "--model.tokenizer", work / "bpe").refused("heads", "chained")

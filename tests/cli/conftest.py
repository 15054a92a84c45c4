import io
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from bytelm.cli import main
from bytelm.encoding import get_encoding, registry

DOCUMENTS = [
    "朝の海は静かで、小さな舟が一つだけ浮かんでいた。",
    "駅前のパン屋は六時に開く。\n焼きたての匂いが通りまで流れてくる。",
    "She counted the stones 1, 2, 3 と声に出して数えた。",
    "",
    "雨の日の図書館には、紙と木の匂いがする。",
]


class Outcome(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        assert self.status == 0, self.err
        return json.loads(self.out.splitlines()[-1])

    def refused(self, *parts: str) -> None:
        """Bad input: status 2, nothing on standard output, one line that holds ``parts``."""
        assert (self.status, self.out) == (2, ""), self
        assert self.err.startswith("bytelm: error: "), self.err
        assert self.err.count("\n") == 1, self.err
        for part in parts:
            assert part in self.err


@pytest.fixture
def run(capsys, monkeypatch):
    def call(*args: object, stdin: bytes | None = None) -> Outcome:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        status = main([str(arg) for arg in args])
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_known", dict(registry._known))


@pytest.fixture(scope="session")
def tiny_config():
    from bytelm.model.config import AttentionConfig, FeedForwardConfig, ModelConfig
    from bytelm.model.ends import ChainedHeadsConfig, MergerConfig

    return ModelConfig(
        width=16,
        num_blocks=1,
        context=64,
        attention=AttentionConfig(num_heads=2, num_kv_heads=1, head_width=8),
        feedforward=FeedForwardConfig(inner=32),
        merger=MergerConfig(byte_width=4),
        heads=ChainedHeadsConfig(byte_width=8, inner=16),
    )


def _save(folder: Path, config, encoding: str) -> Path:
    from bytelm.hub import save_checkpoint
    from bytelm.model import build_model

    save_checkpoint(folder, build_model(config, seed=1), get_encoding(encoding))
    return folder


@pytest.fixture(scope="session")
def chained_model(tiny_config, tmp_path_factory):
    return _save(tmp_path_factory.mktemp("models") / "chained", tiny_config, "dense-ja")


@pytest.fixture(scope="session")
def independent_model(tiny_config, tmp_path_factory):
    from dataclasses import replace

    from bytelm.model.ends import IndependentHeadsConfig

    config = replace(tiny_config, heads=IndependentHeadsConfig())
    return _save(tmp_path_factory.mktemp("models") / "independent", config, "utf8")


@pytest.fixture
def texts():
    return list(DOCUMENTS)


@pytest.fixture
def documents(texts, tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts), encoding="utf-8")
    return path


def documented_fields(help_text: str) -> tuple[set[str], dict[str, set[str]]]:
    """The fields that a command's help names: of the object, and of the entries of each list."""
    stated = re.search(r"JSON fields: (.*?)\.\s*$", " ".join(help_text.split()))
    assert stated is not None, help_text
    nested = {name: set(inner.split(", ")) for name, inner in re.findall(r"(\w+) \(of each: (.*?)\)", stated[1])}
    return set(re.sub(r" \(.*?\)", "", stated[1]).split(", ")), nested


@pytest.fixture
def check_fields():
    def check(command, result: dict[str, Any]) -> None:
        fields, nested = documented_fields(command.__doc__)
        assert set(result) == fields
        for name, inner in nested.items():
            assert result[name]
            for entry in result[name]:
                assert set(entry) == inner

    return check


@pytest.fixture
def start(run, documents, tmp_path, tiny_config):
    """Write a configuration for a run in ``tmp_path/NAME``; returns the arguments that start it."""
    corpus = tmp_path / "corpus"
    run("corpus", "build", documents, "--out", corpus, "--encoding", "utf8")

    def write(name, **trainer):
        logger = {"save_dir": str(tmp_path), "name": name, "version": "run"}
        tree = {
            "trainer": {
                "accelerator": "cpu",
                "max_steps": 9,
                "val_check_interval": 4,
                "check_val_every_n_epoch": None,
                "log_every_n_steps": 1,
                "limit_val_batches": 2,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "logger": [
                    {"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": logger}
                    for kind in ("CSVLogger", "TensorBoardLogger")
                ],
                "callbacks": [
                    {"class_path": "bytelm.training.save_run.SaveRun", "init_args": {"every_n_steps": 1}},
                ],
                **trainer,
            },
            "model": {"encoding": "utf8", "config": tiny_config.to_dict(), "optimizer": {"warmup_steps": 1}},
            "data": {
                **{split: str(corpus) for split in ("train", "valid")},
                **{"window": 32, "batch_size": 2, "windows_per_epoch": 14},
            },
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
        return tmp_path / name / "run", ["fit", "--config", str(path)]

    return write

"""Every example in the help of a command is read by the program, and run as it stands where nothing is far away."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from command_lines import OF_FIT, check_fit_arguments, check_line, examples_of, find_command, program

from bytelm.cli import console, main
from bytelm.cli.app import walk_commands
from bytelm.cli.examples import format_examples
from bytelm.corpus import default_texts

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and torch give advice

LEAVES = [name for name, command in walk_commands(program()) if not hasattr(command, "commands")]
EXAMPLES = [line for name in LEAVES for line in examples_of(format_examples(name))]

FAR_AWAY = ("s3://", "openai-community/", "gptj-6b", "bytelm serve", "--renames")
"""What needs a network, or a machine with much memory, or the checkpoint of others; and what does not end."""

SLOW = ("demo", "fit", "validate", "test", "export", "bench decode", "bench train", "compare", "encoding bench")
SLOW += ("encoding check", "encoding compare", "corpus bench", "eval")
QUICKER = {
    "demo": ("--steps", "2"),
    "bench decode": ("--repeats", "1", "--max-new-tokens", "8", "--batches", "1"),
    "encoding bench": ("--megabytes", "0.2", "--seconds", "1", "--repeats", "1"),
    "corpus bench": ("--megabytes", "0.2"),
    "compare": ("--repeats", "1", "--max-new-chars", "8", "--limit", "3"),
    "generate": ("--max-new-tokens", "12"),
}
"""Options that are put after an example, and change how much is done, not what."""

INSTANT = {"encoding list", "encoding show", "card", "push"}
"""Commands that take no two seconds whatever they are given."""

BAR = "━"


def _name(line):
    return find_command(shlex.split(line))[1]


def _texts(path, texts):
    path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts), encoding="utf-8")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory, tiny_config):
    """A folder that has what the examples name."""
    from dataclasses import replace

    from bytelm.encoding import get_encoding
    from bytelm.hub import save_checkpoint
    from bytelm.model import build_model

    folder = tmp_path_factory.mktemp("workspace")
    texts = default_texts()[:60]
    _texts(folder / "ja.jsonl", texts)
    _texts(folder / "en.jsonl", [f"Ferry {n} leaves at {n % 12}:40; dogs travel free." for n in range(60)])
    (folder / "texts").mkdir()
    _texts(folder / "texts" / "all.jsonl", texts + texts[:3])
    (folder / "prompts.txt").write_text("朝の\n雨\n", encoding="utf-8")
    config = replace(tiny_config, context=2048)
    for seed, name in enumerate(("model", "small")):
        save_checkpoint(folder / name, build_model(config, seed=seed), get_encoding("dense-ja"))
    quick = ["--workers", "0", "--quiet"]
    assert main(["corpus", "build", str(folder / "ja.jsonl"), "--out", str(folder / "corpus"), *quick]) == 0
    table = ["--name", "workspace", "--out", str(folder / "table.json")]
    assert main(["encoding", "fit", str(folder / "en.jsonl"), *table, *quick]) == 0
    (folder / "run.yaml").write_text(yaml.safe_dump(_run(config.to_dict()), allow_unicode=True), encoding="utf-8")
    return folder


def _run(config):
    """A run of a few steps, whose folder is runs/first/version_N."""
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs", "name": "first"}}
    trainer = {"accelerator": "cpu", "max_steps": 4, "logger": logger, "log_every_n_steps": 1, "limit_val_batches": 1}
    return {
        "trainer": {**trainer, "enable_model_summary": False},
        "model": {"encoding": "dense-ja", "config": config, "optimizer": {"warmup_steps": 1}},
        "data": {"train": "corpus", "valid": "corpus", "window": 64, "batch_size": 2, "windows_per_epoch": 20},
    }


@pytest.fixture(scope="session")
def finished_run(workspace):
    """``runs/first/version_0`` in the workspace."""
    before = Path.cwd()
    os.chdir(workspace)
    try:
        assert main(["fit", "--config", "run.yaml"]) == 0
    finally:
        os.chdir(before)
    return workspace / "runs"


@pytest.fixture
def place(request, workspace, tmp_path, monkeypatch):
    """A folder with all of the workspace, for one example."""
    for entry in workspace.iterdir():
        if entry.name != "runs":
            (tmp_path / entry.name).symlink_to(entry)
    if "runs/" in request.node.callspec.params["line"]:
        shutil.copytree(request.getfixturevalue("finished_run"), tmp_path / "runs")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", LEAVES)
def test_the_help_shows_them(run, name):
    """The lines that are run are those that are shown."""
    if name in ("validate", "test"):
        pytest.skip("as fit, and a parser takes a second")
    assert examples_of(run(*name.split(), "--help").out) == examples_of(format_examples(name))


def test_the_program_reads_them():
    of_fit = [found for line in EXAMPLES if (found := check_line(line)) is not None and _name(line) in OF_FIT]
    assert check_fit_arguments(of_fit) >= 4


def _marked(line):
    return pytest.param(line, marks=[pytest.mark.slow] if _name(line) in SLOW else [], id=line)


@pytest.mark.parametrize("line", [_marked(line) for line in EXAMPLES if not any(far in line for far in FAR_AWAY)])
def test_they_run(run, place, monkeypatch, line):
    """And write results alone to standard output, nothing that moves to what is no terminal."""
    bars = []
    timer = console.threading.Timer
    monkeypatch.setattr(console, "BAR_AFTER_S", 0.0)
    monkeypatch.setattr(console.threading, "Timer", lambda *args: bars.append(args) or timer(*args))
    name = _name(line)
    stdin = "朝の\n".encode() if "--interactive" in line else None
    status, out, err = run(*shlex.split(line)[1:], *QUICKER.get(name, ()), stdin=stdin)
    assert status == 0, err
    assert out or name in ("fit", "validate")
    if "--json" in line:
        assert json.loads(out.splitlines()[-1])["command"] == name
    assert not {"\x1b", "\r"} & set(err)
    assert BAR not in err or name in ("validate", "test")  # their figures are in a table with such a frame
    assert "Epoch" not in err
    if (
        name not in INSTANT and "--no-verify" not in line and name not in ("fit", "validate", "test")
    ):  # these have Lightning's bar
        assert bars


def test_those_that_are_far_away_are_few():
    far = [line for line in EXAMPLES if any(part in line for part in FAR_AWAY)]
    assert len(far) == len(FAR_AWAY)
    assert {_name(line) for line in far} - {"serve"} <= {_name(line) for line in EXAMPLES if line not in far}

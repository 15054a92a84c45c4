"""Runs that are killed, terminated or damaged, and go on."""

import csv
import errno
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from run_processes import check_same, fork, rows, wait

from bytelm.cli.lightning import TERMINATED
from bytelm.training.checkpoint_io import _HashedFile, checkpoint_step, checkpoints

pytestmark = [
    pytest.mark.filterwarnings("default"),  # Lightning and torch give advice
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of POSIX"),
]


@pytest.mark.parametrize(("kills", "steps"), [(2, 20), pytest.param(20, 250, marks=pytest.mark.slow)])
def test_killed_at_random_moments(kills, steps, start, tmp_path):
    whole, args = start("whole", max_steps=steps)
    assert wait(fork(args, tmp_path / "log")) == 0
    folder, args = start("killed", max_steps=steps)
    draw = random.Random(kills)
    resume = ["fit", "--resume", str(folder), "--data.num_workers"]
    ends = []
    while len(ends) < kills:
        before = checkpoints(folder / "checkpoints")
        process = fork([*resume, draw.choice("01")] if before else args, tmp_path / "log")
        while checkpoints(folder / "checkpoints") == before and os.waitpid(process, os.WNOHANG) == (0, 0):
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        os.kill(process, signal.SIGKILL)
        ends.append(wait(process))
    assert ends == [-signal.SIGKILL] * kills
    assert 0 < checkpoint_step(checkpoints(folder / "checkpoints")[0]) < steps
    assert wait(fork(resume[:3], tmp_path / "log")) == 0, (tmp_path / "log").read_text()
    check_same(folder, whole)


def test_terminated_and_damaged(start, tmp_path, run):
    whole, args = start("whole", max_steps=16)
    assert wait(fork(args, tmp_path / "log")) == 0
    folder, args = start("stopped", max_steps=16)
    process = fork([*args, "--data.num_workers", "1"], tmp_path / "first")
    while not (folder / "checkpoints" / "step-00000003.ckpt").exists():
        time.sleep(0.005)
    os.killpg(process, signal.SIGTERM)  # the worker gets it, too
    assert wait(process) == TERMINATED == 75
    said = (tmp_path / "first").read_text(encoding="utf-8").splitlines()
    assert said[-1] == "bytelm: terminated; the run goes on with bytelm fit --resume RUN"
    latest, before = checkpoints(folder / "checkpoints")
    latest.write_bytes(latest.read_bytes()[:-1])
    outcome = run("fit", "--resume", folder, "--json")
    assert outcome.json["step"] == 16
    assert outcome.json["run"] == str(folder)
    expected = run("fit", "--resume", whole, "--json").json
    assert outcome.json["metrics"] == expected["metrics"]  # of the last validation, which may be before the checkpoint
    assert "val/bits_per_char" in expected["metrics"]
    (line,) = (line for line in outcome.err.splitlines() if line.startswith("bytelm: warning: "))
    assert f"{latest.name}: torn or altered: found SHA-256" in line
    assert line.endswith(f"; {before.name} before it is used")
    check_same(folder, whole)


def test_the_run_folder_says_what_the_run_was(start, run, tmp_path):
    folder, args = start("x", max_steps=3, callbacks=None)
    run(*args)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert set(record) == {"corpora", "starts"}
    assert set(record["corpora"]) == {"train", "valid"}
    (first,) = record["starts"]
    assert first["step"] == 0
    assert first["libraries"]["torch"] == torch.__version__
    assert set(first) == {"time", "step", "processes", "bytelm", "commit", "python", "libraries", "command"}
    assert [path.name for path in checkpoints(folder / "checkpoints")] == ["step-00000003.ckpt"]
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        speeds = [row for row in csv.DictReader(file) if row["throughput/step_s"]]
    assert [row["step"] for row in speeds] == ["0", "1", "2"]
    for row in speeds:
        assert float(row["throughput/symbols_per_s"]) * float(row["throughput/step_s"]) == pytest.approx(2 * 32)
        ratio = float(row["throughput/chars_per_s"]) / float(row["throughput/symbols_per_s"])
        assert 0 < ratio < 1
        assert 0 <= float(row["throughput/data_share"]) < 1
    (events,) = folder.glob("events.out.tfevents.*")
    assert b"throughput/chars_per_s" in events.read_bytes()
    config = (folder / "config.yaml").read_text(encoding="utf-8")

    result = run("fit", "--resume", folder, "--json").json  # nothing is left to do
    assert (result["step"], result["run"]) == (3, str(folder))
    assert (folder / "config.yaml").read_text(encoding="utf-8") == config
    result = run("fit", f"--resume={folder}", "--trainer.max_steps", 5, "--json").json
    assert result["step"] == 5
    assert [row["step"] for row in rows(folder)] == ["0", "1", "2", "3", "3", "4"]  # with a validation
    assert [start["step"] for start in json.loads((folder / "run.json").read_text())["starts"]] == [0, 3, 3]
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["trainer"]["max_steps"] == 5

    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": "別の文。" * 30}, ensure_ascii=False), encoding="utf-8")
    run("corpus", "build", other, "--out", tmp_path / "corpus", "--encoding", "utf8", "--overwrite")
    resumed = run("fit", "--resume", folder, "--trainer.max_steps", 7)
    resumed.refused("data.train: found a corpus of digest", "run.json")
    run("fit", "--resume", folder, "--model.config.width", 24).refused("its model configuration is not the one")
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["trainer"]["max_steps"] == 5


def test_what_cannot_be_resumed(start, run, tmp_path):
    run("fit", "--resume", tmp_path).refused(f"--resume: found '{tmp_path}', expected the folder of a run")
    run("fit", "--resume").refused("--resume: found ''")
    run("validate", "--resume", tmp_path).refused("--resume: found it with validate")
    folder, args = start("x", max_steps=1)
    run(*args)
    run(*args, "--resume", folder).refused("--resume: found it with --config")
    run("fit", "--resume", folder, "--ckpt_path", "x.ckpt").refused("--resume: found it with --ckpt_path")
    for path in checkpoints(folder / "checkpoints"):
        path.write_bytes(b"")
    run("fit", "--resume", folder).refused("found no good checkpoint", "step-00000001.ckpt: torn or altered")


def test_metrics_survive_a_kill_while_they_are_taken_up(start, run):
    folder, args = start("x", max_steps=2)
    run(*args)
    before = rows(folder)
    (folder / "metrics.csv").replace(folder / "metrics.csv.kept")  # what a run that was killed then leaves
    run("fit", "--resume", folder)
    assert rows(folder) == before
    with open(folder / "metrics.csv", "a", encoding="utf-8") as file:
        file.write("0,1")  # a row that was cut while it was written
    run("fit", "--resume", folder)
    assert rows(folder) == before


@pytest.mark.parametrize("logger", [False, None])
def test_runs_with_other_loggers(logger, start, run, tmp_path):
    _, args = start("x", max_steps=2, logger=logger, default_root_dir=str(tmp_path / "here"))
    folder = run(*args, "--json").json["run"]
    assert run("fit", "--resume", folder, "--trainer.max_steps", 4, "--json").json["run"] == folder
    assert checkpoint_step(checkpoints(Path(folder) / "checkpoints")[0]) == 4


def test_a_disk_that_is_full(start, run, monkeypatch):
    folder, args = start("x", max_steps=4)
    real = _HashedFile.write

    def write(self, data):
        if "00000003" in self.file.name:
            self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.error
        return real(self, data)

    monkeypatch.setattr(_HashedFile, "write", write)
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    path = folder / "checkpoints" / "step-00000003.ckpt"
    assert err.splitlines()[-1] == f"bytelm: error: {path}: cannot be written: No space left on device"
    monkeypatch.undo()
    assert run("fit", "--resume", folder, "--json").json["step"] == 4


def test_training_is_quiet(start, run):
    folder, args = start("told", max_steps=1, enable_model_summary=True)
    assert "Total params" in run(*args).err
    folder, args = start("quiet", max_steps=1, enable_model_summary=True)
    result = run(*args, "--quiet")
    assert (result.status, result.err) == (0, "")
    assert (folder / "model").is_dir()

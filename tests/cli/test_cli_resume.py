"""Runs that are killed, terminated or damaged, and go on."""

import csv
import os
import random
import signal
import time

import pytest
import torch
import yaml

from bytelm.cli import main
from bytelm.cli.lightning import TERMINATED
from bytelm.training.checkpoint_io import checkpoint_step, checkpoints

pytestmark = [
    pytest.mark.filterwarnings("default"),  # Lightning and torch give advice
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of POSIX"),
]


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


def fork(args, log):
    """``bytelm ARGS`` in a process of its own, which need not import anything again; returns its number."""
    process = os.fork()
    if process:
        return process
    with open(log, "ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        status = 99
        try:
            status = main(args)
        finally:
            os._exit(status)


def wait(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def weights(folder):
    return torch.load(checkpoints(folder / "checkpoints")[0], weights_only=True)["state_dict"]


def rows(folder):
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check_same(folder, whole):
    expected = weights(whole)
    assert [name for name, value in weights(folder).items() if not torch.equal(value, expected[name])] == []
    assert rows(folder) == rows(whole)


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


def test_terminated_and_damaged(start, run, tmp_path):
    whole, args = start("whole", max_steps=9)
    assert wait(fork(args, tmp_path / "log")) == 0
    folder, args = start("stopped", max_steps=9, accumulate_grad_batches=1)
    first = fork([*args, "--trainer.max_steps", "100000"], tmp_path / "first")
    while not (folder / "checkpoints" / "step-00000003.ckpt").exists():
        time.sleep(0.005)
    os.kill(first, signal.SIGTERM)
    assert wait(first) == TERMINATED == 75
    assert "terminated; the run goes on with bytelm fit --resume" in (tmp_path / "first").read_text()

"""Runs of several processes on the CPU: the same weights, metrics and files as one process gives."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from run_processes import as_slurm, fork, fork_all, rows, wait, wait_all
from safetensors.torch import load_file

import bytelm
from bytelm.cli.lightning import TERMINATED
from bytelm.training.checkpoint_io import checkpoints

pytestmark = [
    pytest.mark.filterwarnings("default"),  # Lightning and torch give advice
    pytest.mark.skipif(not hasattr(os, "fork") or not torch.distributed.is_available(), reason="processes of POSIX"),
]

SAVE = {"class_path": "bytelm.training.save_run.SaveRun", "init_args": {"every_n_steps": 1}}
SAMPLES = {
    "class_path": "bytelm.training.callbacks.LogSamples",
    "init_args": {"prompts": ["朝の"], "max_new_tokens": 6},
}
DRAWS = {"class_path": "run_processes.Draws"}
DDP = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]
SHARDED = ["--trainer.strategy", "sharded", "--trainer.devices", "2"]
CHECKPOINTED = ["--model.activation_checkpointing", "true"]
TOLERANCE = 1e-6
"""Of weights after 9 steps of at most 5e-4; the worst that was seen is 1.4e-7, with n-gram tables."""


@pytest.fixture
def settings(start):
    """As ``start``; seven windows are half a batch more than whole ones, and five cannot be shared by two processes."""

    def write(name, **trainer):
        options = {"callbacks": [SAVE, SAMPLES], "gradient_clip_val": 0.5, "limit_val_batches": None} | trainer
        folder, args = start(name, **options)
        return folder, [*args, "--data.valid_windows", "5"]

    return write


def model(folder):
    return load_file(folder / "model" / "model.safetensors")


def worst(folder, whole):
    found, expected = model(folder), model(whole)
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


def names(folder):
    """Of the files in a folder; TensorBoard's without moment and process."""
    return sorted(path.name.split(".vm.")[0].rstrip("0123456789.") or path.name for path in folder.iterdir())


def text(tmp_path, name="log"):
    return "".join(path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob(f"{name}.*")))


def test_two_processes_are_as_one(settings, tmp_path):
    whole, args = settings("whole")
    assert wait(fork([*args, "--data.batch_size", "4"], tmp_path / "whole.log")) == 0
    for name, options in (("ddp", DDP), ("sharded", [*SHARDED, *CHECKPOINTED])):
        folder, args = settings(name)
        assert wait_all(fork_all([*args, *options, "--json"], tmp_path / name, 2)) == [0, 0], text(tmp_path, name)
        check_run(folder, whole)
        results = [json.loads(line) for line in text(tmp_path, name).splitlines() if line.startswith('{"command"')]
        assert [result["step"] for result in results] == [9]


def check_run(folder, whole):
    """Weights and metrics are those of one process, and every file is there once."""
    assert worst(folder, whole) < TOLERANCE
    for found, expected in zip(rows(folder), rows(whole), strict=True):
        assert found.keys() == expected.keys()
        assert {k: float(v) for k, v in found.items() if v} == pytest.approx(
            {k: float(v) for k, v in expected.items() if v}, rel=1e-5
        )
    saved = checkpoints(folder / "checkpoints")
    assert [path.name for path in saved] == [f"step-0000000{n}.ckpt" for n in (9, 8)]
    assert not {path.name for path in saved[0].parent.iterdir()} - {
        f"{path.name}{suffix}" for path in saved for suffix in ("", ".sha256")
    }
    (begun,) = json.loads((folder / "run.json").read_text())["starts"]
    assert begun["processes"] == 2
    assert (folder / "samples.txt").read_text(encoding="utf-8").count("--- step") == 2
    assert bytelm.load(folder / "model").config == bytelm.load(whole / "model").config
    assert names(folder) == names(whole)


@pytest.mark.slow
def test_a_difference_is_seen(settings, tmp_path):
    """The test above fails where the processes have the same windows, or do not add up their gradients."""
    whole, args = settings("whole")
    assert wait(fork([*args, "--data.batch_size", "4"], tmp_path / "whole.log")) == 0
    for name, batch in (("alone", "2"), ("larger", "8")):
        folder, args = settings(name)
        assert wait(fork([*args, "--data.batch_size", batch], tmp_path / f"{name}.log")) == 0
        assert worst(folder, whole) > 100 * TOLERANCE


NEXT_PATCH = ["--model.next_patch.byte_width", "4", "--model.next_patch.inner", "8", "--model.next_patch.depth", "1"]
TABLES = "{orders: [2, 3], rows: 37}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "model_options",
    [
        NEXT_PATCH,
        [*NEXT_PATCH, "--model.train_only", "next_patch"],
        ["--model.config.merger.tables", TABLES, "--model.config.heads.tables", TABLES],
        ["--model.optimizer.decay_groups", "[{names: 'blocks.*', weight_decay: 0.1}]", *CHECKPOINTED],
        ["--trainer.gradient_clip_algorithm", "value", "--trainer.gradient_clip_val", "1e-4"],
    ],
    ids=["next_patch", "next_patch_only", "tables", "decay", "clip_values"],
)
def test_kinds_of_models_in_shards(model_options, settings, tmp_path):
    whole, args = settings("whole", max_steps=5, accumulate_grad_batches=2)
    assert wait(fork([*args, *model_options, "--data.batch_size", "4"], tmp_path / "whole.log")) == 0
    folder, args = settings("shared", max_steps=5, accumulate_grad_batches=2)
    assert wait_all(fork_all([*args, *model_options, *SHARDED], tmp_path / "log", 2)) == [0, 0], text(tmp_path)
    assert worst(folder, whole) < TOLERANCE


def wait_for(folder, step, processes):
    path, end = folder / "checkpoints" / f"step-{step:08d}.ckpt", time.monotonic() + 180  # on a busy machine, too
    while time.monotonic() < end:
        if path.exists():
            return
        assert os.waitid(os.P_PID, processes[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        time.sleep(0.005)
    raise AssertionError(f"{path} did not come")


def draws(folder):
    """What each process drew last at each step: a step after the last checkpoint is done twice."""
    return [
        dict(line.split(" ", 1) for line in (folder / f"draws-{rank}").read_text().splitlines()) for rank in range(2)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("options", [DDP, SHARDED], ids=["ddp", "sharded"])
def test_killed_processes_go_on_to_the_bit(options, settings, tmp_path):
    whole, args = settings("whole", callbacks=[SAVE, DRAWS], max_steps=12)
    assert wait_all(fork_all([*args, *options], tmp_path / "log", 2)) == [0, 0], text(tmp_path)
    folder, args = settings("killed", callbacks=[SAVE, DRAWS], max_steps=12)
    processes = fork_all([*args, *options], tmp_path / "killed", 2)
    wait_for(folder, 4, processes)
    for process in reversed(processes):
        os.kill(process, signal.SIGKILL)
    wait_all(processes)
    resumed = fork_all(["fit", "--resume", str(folder)], tmp_path / "resumed", 2)
    assert wait_all(resumed) == [0, 0], text(tmp_path, "resumed")
    assert worst(folder, whole) == 0
    assert rows(folder) == rows(whole)
    found, expected = draws(folder), draws(whole)
    assert found == expected
    assert len(found[0]) == 12
    assert found[0] != found[1]
    first, second = json.loads((folder / "run.json").read_text())["starts"]
    assert first["step"] == 0
    assert second["step"] >= 4


@pytest.mark.slow
@pytest.mark.parametrize("options", [DDP, SHARDED], ids=["ddp", "sharded"])
def test_sigterm_to_one_process_saves_in_all(options, settings, tmp_path, run):
    folder, args = settings("stopped", max_steps=1000)
    processes = fork_all([*args, *options], tmp_path / "log", 2)
    wait_for(folder, 3, processes)
    os.kill(processes[1], signal.SIGTERM)
    assert wait_all(processes) == [TERMINATED, 0], text(tmp_path)
    assert "terminated" in (tmp_path / "log.0").read_text().splitlines()[-1]
    latest, before = checkpoints(folder / "checkpoints")
    exported = run("export", folder, "--out", tmp_path / "out", "--json").json
    assert exported["checkpoint"] == str(latest)
    assert bytelm.load(tmp_path / "out").config == bytelm.load(exported["model"]).config
    damaged = next(path for path in (latest.iterdir() if latest.is_dir() else [latest]) if path.name[-1] in "pt")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    outcome = run("export", folder, "--out", tmp_path / "out", "--json")
    assert outcome.json["checkpoint"] == str(before)
    assert f"{damaged.name}: torn or altered" in outcome.err


@pytest.mark.slow
def test_the_model_of_a_checkpoint_is_the_one_of_the_run(settings, tmp_path, run):
    folder, args = settings("x", max_steps=3)
    assert wait_all(fork_all([*args, *SHARDED], tmp_path / "log", 2)) == [0, 0], text(tmp_path)
    (latest, _) = checkpoints(folder / "checkpoints")
    run("export", latest, "--out", tmp_path / "out")
    exported, written = load_file(tmp_path / "out" / "model.safetensors"), model(folder)
    assert exported.keys() == written.keys()
    assert all(torch.equal(exported[name], written[name]) for name in written)
    run("export", tmp_path, "--out", tmp_path / "out").refused(f"{tmp_path}.sha256: No such file")
    # one process reads it too, where its strategy is the same; another is told what to do
    again = ["fit", "--resume", str(folder), "--trainer.max_steps", "5"]
    alone = [*again, "--trainer.strategy", "auto", "--trainer.devices", "1", "--data.batch_size", "4"]
    run(*alone).refused("found shards", "trainer.strategy: sharded")
    half = fork_all([*again, *SHARDED, "--trainer.devices", "1", "--data.batch_size", "4"], tmp_path / "one", 1)
    assert wait_all(half) == [0], text(tmp_path, "one")


@pytest.mark.slow
def test_from_whole_weights_to_shards(settings, tmp_path):
    whole, args = settings("whole", max_steps=12)
    assert wait_all(fork_all([*args, *DDP], tmp_path / "log", 2)) == [0, 0], text(tmp_path)
    folder, args = settings("killed", max_steps=12)
    processes = fork_all([*args, *DDP], tmp_path / "log", 2)
    wait_for(folder, 4, processes)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    wait_all(processes)
    again = ["fit", "--resume", str(folder), *SHARDED]
    assert wait_all(fork_all(again, tmp_path / "again", 2)) == [0, 0], text(tmp_path, "again")
    assert worst(folder, whole) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("options", [DDP, SHARDED], ids=["ddp", "sharded"])
def test_a_full_disk_ends_all_processes(options, settings, tmp_path):
    """It is one process whose disk is full: the first, or with shards the second."""
    folder, args = settings("x")
    code = "run_processes.FullDisk"
    args = [*args, "--trainer.callbacks+", code, "--trainer.callbacks.rank", "0" if options is DDP else "1"]
    assert wait_all(fork_all([*args, *options], tmp_path / "log", 2)) == [2, 2], text(tmp_path)
    path = folder / "checkpoints" / "step-00000002.ckpt"
    for rank in range(2):
        said = (tmp_path / f"log.{rank}").read_text().splitlines()[-1]
        assert said == f"bytelm: error: {path}: cannot be written: No space left on device"
    assert sorted(path.name for path in path.parent.iterdir()) == [
        f"step-00000001.ckpt{suffix}" for suffix in ("", ".sha256")
    ]


@pytest.mark.slow
def test_slurm_is_seen(settings, tmp_path):
    folder, args = settings("x", max_steps=2)
    assert wait_all(fork_all([*args, *DDP], tmp_path / "log", 2, as_slurm)) == [0, 0], text(tmp_path)
    assert json.loads((folder / "run.json").read_text())["starts"][0]["processes"] == 2
    wrong = fork_all([*args, *DDP[:-1], "3"], tmp_path / "wrong", 1, as_slurm)
    assert wait_all(wrong) == [2]
    assert "trainer.devices: You set `devices=3`" in (tmp_path / "wrong.0").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--model.optimizer.algorithm", "muon"],
            "model.optimizer.algorithm: found 'muon' with trainer.strategy sharded, expected 'adamw'",
        ),
        (
            ["--trainer.callbacks+", "bytelm.training.averaging.AverageWeights"],
            "trainer.callbacks: found AverageWeights with trainer.strategy sharded",
        ),
        (
            ["--trainer.strategy", "bytelm.training.sharding.ShardedStrategy", "--trainer.strategy.shards", "3"],
            "trainer.strategy.shards: found 3, expected a divisor of 1 processes",
        ),
        (
            ["--trainer.strategy.class_path", "lightning.pytorch.strategies.ModelParallelStrategy"],
            "trainer.strategy: found ModelParallelStrategy, expected sharded",
        ),
    ],
)
def test_what_does_not_go_with_shards(options, message, settings, tmp_path):
    _, args = settings("x", max_steps=2)
    sharded = [*SHARDED[:2], "--trainer.devices", "1"]
    assert wait_all(fork_all([*args, *sharded, *options], tmp_path / "log", 1)) == [2], text(tmp_path)
    assert message in text(tmp_path).splitlines()[-1]


def bytelm_process(*args, env=None, module=("bytelm",)):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(env or {})}
    return subprocess.run(
        [sys.executable, "-m", *module, *args],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "bytelm")


@pytest.mark.slow
@pytest.mark.parametrize("module", [("bytelm",), TORCHRUN], ids=["lightning", "torchrun"])
@pytest.mark.parametrize("options", [DDP, SHARDED], ids=["ddp", "sharded"])
def test_started_by_others(module, options, settings, tmp_path):
    whole, args = settings("whole")
    assert wait(fork([*args, "--data.batch_size", "4"], tmp_path / "whole.log")) == 0
    folder, args = settings("shared")
    done = bytelm_process(*args, *options, "--json", module=module)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 9
    assert worst(folder, whole) < TOLERANCE
    resumed = bytelm_process("fit", "--resume", str(folder), "--trainer.max_steps", "11", "--json", module=module)
    assert json.loads(resumed.stdout)["step"] == 11, resumed.stderr


@pytest.mark.slow
def test_four_processes_with_two_copies(settings, tmp_path):
    whole, args = settings("whole", accumulate_grad_batches=2)
    windows = ["--data.windows_per_epoch", "16"]
    assert wait(fork([*args, *windows, "--data.batch_size", "4"], tmp_path / "whole.log")) == 0
    folder, args = settings("shared", accumulate_grad_batches=2)
    strategy = ["--trainer.strategy", "bytelm.training.sharding.ShardedStrategy", "--trainer.strategy.shards", "2"]
    args = [*args, *strategy, "--trainer.devices", "4", "--data.batch_size", "1", *windows]
    assert wait_all(fork_all(args, tmp_path / "log", 4)) == [0] * 4, text(tmp_path)
    assert worst(folder, whole) < TOLERANCE

"""A run that was stopped and goes on gives the weights and losses of one that never stopped, to the bit."""

import errno
import itertools
import os
import random
import shutil
import signal
from unittest.mock import Mock

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from support import LIGHTNING_ADVICE, tiny_config
from torch.utils.data import DistributedSampler, TensorDataset

from bytelm.errors import CheckpointError, ConfigError
from bytelm.training import ByteLMModule, CorpusData, OptimizerConfig, checkpoint_io
from bytelm.training.averaging import AverageWeights
from bytelm.training.checkpoint_io import checkpoint_step, checkpoints, last_good_checkpoint
from bytelm.training.loader import EpochLoader, EpochPositions, EvaluationLoader, own_windows
from bytelm.training.save_run import SaveRun, _random_state, _set_random_state

pytestmark = [
    *LIGHTNING_ADVICE,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork"),
]
EPOCH = 7
"""Batches of an epoch; with two parts to a gradient, its last gradient has only one."""


class Rows(DummyLogger):
    """Keeps what is logged."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def log_metrics(self, metrics, step=None):
        self.rows.setdefault(step, {}).update(metrics)


class Noise(L.Callback):
    """Draws from generators in each step, so that the weights depend on their states.

    Python's own is left out: the type checks of the tests draw from it.
    """

    def on_before_optimizer_step(self, trainer, module, optimizer):
        factor = 1 + 0.1 * (torch.rand(()).item() + np.random.rand())
        for parameter in module.parameters():
            parameter.grad.mul_(factor)


class StopAt(L.Callback):
    """Ends the run before a batch: by SIGTERM, or by an error as if the process was killed."""

    def __init__(self, batch, kill=True):
        self.batch, self.kill, self.seen = batch, kill, 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if self.seen == self.batch:
            if self.kill:
                raise RuntimeError("killed")
            os.kill(os.getpid(), signal.SIGTERM)
        self.seen += 1


def fit(corpora, folder, rows, *, stop=None, ckpt_path=None, workers=0, every=1, max_steps=12, **options):
    L.seed_everything(3, verbose=False)
    module = ByteLMModule(
        config=tiny_config("independent"), optimizer=OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=3)
    )
    data = CorpusData(
        corpora["train"],
        corpora["valid"],
        window=16,
        batch_size=2,
        windows_per_epoch=2 * EPOCH,
        valid_windows=4,
        num_workers=workers,
    )
    defaults = {
        "accelerator": "cpu",
        "max_steps": max_steps,
        "logger": Rows(rows),
        "log_every_n_steps": 2,
        "val_check_interval": 3,
        "check_val_every_n_epoch": None,
        "gradient_clip_val": 1.0,
        "num_sanity_val_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "reload_dataloaders_every_n_epochs": 1,
        "default_root_dir": folder,
        "callbacks": [Noise(), *([stop] if stop else []), SaveRun(every_n_steps=every)],
    }
    trainer = L.Trainer(**defaults | options)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module, trainer


@pytest.fixture(scope="module")
def whole_run(corpora, tmp_path_factory):
    """Weights and logged rows of runs that were not stopped, by the batches of a gradient."""
    found = {}
    for accumulate in (1, 2):
        rows = {}
        folder = tmp_path_factory.mktemp("whole")
        module, _ = fit(corpora, folder, rows, accumulate_grad_batches=accumulate)
        found[accumulate] = module.state_dict(), rows
    return found


def check_same(module, rows, whole):
    weights, expected = whole
    assert [name for name, value in module.state_dict().items() if not torch.equal(value, weights[name])] == []
    assert rows == expected


QUICK = [(4, 1, 1), (7, 1, 1), (8, 1, 1), (11, 1, 4), (8, 2, 1), (9, 2, 1), (11, 2, 4)]
"""Middle, end and begin of an epoch, a validation behind the checkpoint, part of a gradient done."""


@pytest.mark.parametrize(
    ("batch", "accumulate", "every"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(range(1, 12), (1, 2), (1, 4))
    ],
)
def test_a_killed_run_goes_on_to_the_bit(batch, accumulate, every, corpora, tmp_path, whole_run):
    rows, options = {}, {"accumulate_grad_batches": accumulate, "every": every}
    with pytest.raises(RuntimeError, match="killed"):
        fit(corpora, tmp_path, rows, stop=StopAt(batch), **options)
    saved = checkpoints(tmp_path / "checkpoints")
    path = last_good_checkpoint(tmp_path / "checkpoints", pytest.fail) if saved else None
    module, trainer = fit(corpora, tmp_path, rows, ckpt_path=path, **options)
    check_same(module, rows, whole_run[accumulate])
    assert trainer.global_step == 12


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 1), (1, 2)])
def test_the_number_of_workers_may_change(before, after, corpora, tmp_path, whole_run):
    rows = {}
    with pytest.raises(RuntimeError, match="killed"):
        fit(corpora, tmp_path, rows, stop=StopAt(9), workers=before)
    path = last_good_checkpoint(tmp_path / "checkpoints", pytest.fail)
    module, _ = fit(corpora, tmp_path, rows, ckpt_path=path, workers=after)
    check_same(module, rows, whole_run[1])


def test_averaged_weights_go_on(corpora, tmp_path):
    found = []
    for name, stop in (("whole", None), ("killed", StopAt(8))):
        rows, path = {}, None
        callbacks = [Noise(), AverageWeights(0.9), SaveRun(every_n_steps=1)]
        if stop is not None:
            with pytest.raises(RuntimeError, match="killed"):
                fit(corpora, tmp_path / name, rows, callbacks=[stop, *callbacks])
            path = last_good_checkpoint(tmp_path / name / "checkpoints", pytest.fail)
            callbacks = [Noise(), AverageWeights(0.9), SaveRun(every_n_steps=1)]
        module, _ = fit(corpora, tmp_path / name, rows, callbacks=callbacks, ckpt_path=path)
        found.append((module, rows))
    (whole, expected), (module, rows) = found
    check_same(module, rows, (whole.state_dict(), expected))


@pytest.mark.parametrize("legs", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_run_stopped_again_and_again(legs, corpora, tmp_path, whole_run):
    rows, path = {}, None
    for _ in range(legs):
        with pytest.raises(RuntimeError, match="killed"):
            fit(corpora, tmp_path, rows, stop=StopAt(2), ckpt_path=path)  # one step further than the last checkpoint
        path = last_good_checkpoint(tmp_path / "checkpoints", pytest.fail)
    assert checkpoint_step(path) == legs
    module, _ = fit(corpora, tmp_path, rows, ckpt_path=path)
    check_same(module, rows, whole_run[1])


@pytest.mark.parametrize("part", [EpochLoader, SaveRun])
def test_what_is_left_out_is_noticed(part, corpora, tmp_path, whole_run, monkeypatch):
    """The test above fails where the data begin anew, or where random state is not kept."""
    rows = {}
    with pytest.raises(RuntimeError, match="killed"):
        fit(corpora, tmp_path, rows, stop=StopAt(6))
    monkeypatch.setattr(part, "load_state_dict", lambda self, state: None)
    path = last_good_checkpoint(tmp_path / "checkpoints", pytest.fail)
    module, _ = fit(corpora, tmp_path, rows, ckpt_path=path)
    with pytest.raises(AssertionError):
        check_same(module, rows, whole_run[1])


@pytest.mark.parametrize("steps", [5, 7])
def test_a_longer_run_goes_on_with_the_next_batch(steps, corpora, tmp_path):
    batches = [[], []]
    fit(corpora, tmp_path / "a", {}, stop=Batches(batches[0]), max_steps=10)
    fit(corpora, tmp_path / "b", {}, stop=Batches(batches[1]), max_steps=steps)
    path = last_good_checkpoint(tmp_path / "b" / "checkpoints", pytest.fail)
    _, trainer = fit(corpora, tmp_path / "b", {}, stop=Batches(batches[1]), max_steps=10, ckpt_path=path)
    assert (trainer.global_step, trainer.current_epoch) == (10, 2)  # the second is cut by max_steps
    assert len(batches[0]) == 10
    assert all(torch.equal(first, second) for first, second in zip(*batches, strict=True))


class Batches(L.Callback):
    """Keeps the batches."""

    def __init__(self, batches):
        self.batches = batches

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append(batch.clone())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sigterm_saves_and_leaves(accumulate, corpora, tmp_path, whole_run):
    rows = {}
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SIGTERMException):
        fit(corpora, tmp_path, rows, stop=StopAt(3, kill=False), every=1000, accumulate_grad_batches=accumulate)
    assert signal.getsignal(signal.SIGTERM) is former
    path = last_good_checkpoint(tmp_path / "checkpoints", pytest.fail)
    assert checkpoint_step(path) == {1: 3, 2: 2}[accumulate]
    module, _ = fit(corpora, tmp_path, rows, ckpt_path=path, accumulate_grad_batches=accumulate)
    check_same(module, rows, whole_run[accumulate])


def test_python_and_numpy_draw_on():
    state = _random_state()
    drawn = random.random(), np.random.rand(), np.random.standard_normal(), torch.rand(())
    _set_random_state(state)
    assert drawn == (random.random(), np.random.rand(), np.random.standard_normal(), torch.rand(()))


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("used", [0, 2, 4])
def test_positions_are_those_of_torch(processes, used):
    for length in (7, 9, 12):
        for rank in range(processes):
            dataset = TensorDataset(torch.zeros(length))
            positions = EpochPositions(dataset, processes, rank)
            positions.used = used
            reference = list(DistributedSampler(dataset, processes, rank, shuffle=False))
            assert (list(positions), len(positions)) == (reference[used:], len(reference))


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_every_window_is_counted_once(processes, batch_size):
    for length in range(1, 14):
        counted, batches = [], []
        for rank in range(processes):
            trainer = Mock(L.Trainer, distributed_sampler_kwargs={"num_replicas": processes, "rank": rank})
            loader = EvaluationLoader(TensorDataset(torch.arange(length)), batch_size, 0, trainer)
            for i, (batch,) in enumerate(loader):
                counted += batch[: own_windows(loader, batch, i)].tolist()
            batches.append(i)
        assert sorted(counted) == list(range(length))
        assert len(set(batches)) == 1  # a process without a batch would not take part in what all do together
    assert own_windows([batch], batch, 0) == len(batch)


def test_another_number_of_windows_in_a_batch_is_refused():
    states = []
    for processes in (1, 2):
        trainer = Mock(L.Trainer, distributed_sampler_kwargs={"num_replicas": processes, "rank": 0})
        loader = EpochLoader(TensorDataset(torch.arange(9)), 2, 0, 0, trainer)
        states.append({"epoch": 0, "batches": 1, "windows": 2 * processes})
        loader.load_state_dict(states[-1])
        assert next(batch.tolist() for (batch,) in loader) == ([2, 3], [4, 6])[processes - 1]
    with pytest.raises(ConfigError, match=r"data.batch_size: found 2 for each of 2 processes, expected 2 windows"):
        loader.load_state_dict(states[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 1}, "SaveRun.keep: found 1, expected at least 2"),
        ({"every_n_steps": 0}, "SaveRun.every_n_steps: found 0, expected at least 1"),
        ({"every_minutes": 0}, "SaveRun.every_minutes: found 0, expected a number > 0"),
    ],
)
def test_bad_numbers_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        SaveRun(**options)


def test_checkpoints_of_an_earlier_run_are_put_away(corpora, tmp_path):
    for _ in range(2):
        fit(corpora, tmp_path, {}, max_steps=2)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000002.ckpt", "step-00000001.ckpt"]
    assert len(checkpoints(tmp_path / "checkpoints.1")) == 2


def test_a_folder_that_is_gone_stops_training(corpora, tmp_path):
    class Remove(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if batch_idx == 3:
                shutil.move(tmp_path / "checkpoints", tmp_path / "elsewhere")

    with pytest.raises(CheckpointError, match=r"checkpoints: the folder is gone"):
        fit(corpora, tmp_path, {}, stop=Remove())
    assert checkpoint_step(last_good_checkpoint(tmp_path / "elsewhere", pytest.fail)) == 2


def test_a_full_disk_stops_training_and_leaves_the_last_checkpoint(corpora, tmp_path, monkeypatch):
    class Fill(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if batch_idx == 3:
                monkeypatch.setattr(checkpoint_io._HashedFile, "write", full)

    def full(self, data):
        self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise self.error

    with pytest.raises(CheckpointError, match=r"step-00000003\.ckpt: cannot be written: No space left on device$"):
        fit(corpora, tmp_path, {}, stop=Fill())
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        f"step-0000000{n}.ckpt{suffix}" for n in (1, 2) for suffix in ("", ".sha256")
    ]
    assert checkpoint_step(last_good_checkpoint(tmp_path / "checkpoints", pytest.fail)) == 2

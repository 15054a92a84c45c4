"""Runs in processes of their own: one, or several as torchrun and SLURM start them."""

import contextlib
import csv
import errno
import os
import socket
import traceback
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch.distributed.checkpoint import filesystem

from bytelm.cli import main
from bytelm.training import checkpoint_io
from bytelm.training.checkpoint_io import checkpoints


def fork(args, log, **environment):
    """``bytelm ARGS`` in a process of its own, which need not import anything again; returns its number."""
    process = os.fork()
    if process:
        return process
    status = 99
    os.setpgid(0, 0)
    os.environ.update({name: str(value) for name, value in environment.items()})
    try:
        with (
            open(log, "a", encoding="utf-8") as file,
            contextlib.redirect_stdout(file),
            contextlib.redirect_stderr(file),
        ):
            try:
                status = main(args)
            except BaseException:
                traceback.print_exc()
                raise
    finally:
        os._exit(status)


def wait(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def weights(folder):
    return torch.load(checkpoints(folder / "checkpoints")[0], weights_only=True)["state_dict"]


def rows(folder):
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    plain = [row for row in found if not row.get("throughput/step_s")]  # no two runs have the same throughput
    return [{name: value for name, value in row.items() if not name.startswith("throughput/")} for row in plain]


def check_same(folder, whole):
    expected = weights(whole)
    assert [name for name, value in weights(folder).items() if not torch.equal(value, expected[name])] == []
    assert rows(folder) == rows(whole)


def fork_all(args, log, num, environment=None):
    """``bytelm ARGS`` in ``num`` processes that are to work together; the log of number R is ``LOG.R``."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = environment or as_torchrun
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [fork(args, f"{log}.{rank}", **shared, **environment(rank, num)) for rank in range(num)]


def as_torchrun(rank, num):
    """What torchrun tells a process of one node."""
    sizes = {"WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "test"}
    return {"RANK": rank, "LOCAL_RANK": rank, **sizes}


def as_slurm(rank, num):
    """What srun tells a process of one node."""
    job = {"SLURM_JOB_ID": 1234, "SLURM_JOB_NAME": "test", "SLURM_NNODES": 1, "SLURM_NODEID": 0}
    return {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NTASKS": num, "SLURM_NTASKS_PER_NODE": num, **job}


def wait_all(processes):
    """Exit statuses."""
    return [wait(process) for process in processes]


class Draws(L.Callback):
    """Each process draws as many numbers per step as its number says, and one more, which it writes down."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        drawn = torch.rand(trainer.global_rank + 1)[-1].item(), np.random.rand(trainer.global_rank + 1)[-1]
        folder = Path(trainer.log_dir)
        with open(folder / f"draws-{trainer.global_rank}", "a", encoding="utf-8") as file:
            file.write(f"{trainer.global_step} {drawn}\n")


class FullDisk(L.Callback):
    """From the third checkpoint on, the disk of one process is full.

    Args:
        rank: its number.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 2 and trainer.global_rank == self.rank:
            checkpoint_io._HashedFile.write = _refuse
            filesystem._write_item = _refuse


def _refuse(file, *args, **options):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if isinstance(file, checkpoint_io._HashedFile):
        file.error = error
    raise error

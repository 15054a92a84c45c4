"""A loader of training windows that begins where an interrupted epoch stopped."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class EpochPositions(DistributedSampler[int]):
    """The positions of an epoch in their order, every W-th for each of W processes, without those already used.

    Its length is that of the whole epoch, used positions included: it is what the trainer counts against.

    Args:
        dataset: what the positions are of.
        num_replicas: W, processes that share the epoch.
        rank: the process that asks, 0 to W - 1.
    Attributes:
        used: positions to leave out, of each process.
    """

    def __init__(self, dataset: Dataset[Tensor], num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.used = 0

    def __iter__(self) -> Iterator[int]:
        length = len(self.dataset)  # type: ignore[arg-type]
        for position in range(self.rank + self.used * self.num_replicas, self.total_size, self.num_replicas):
            yield position % length


class WindowLoader(DataLoader[Tensor]):
    """A loader whose workers, with :func:`ignore_termination`, never see a SIGTERM, not while they start either.

    Attributes:
        wait_s: seconds that were waited for batches, in all.
    """

    wait_s = 0.0

    def __iter__(self) -> Any:
        return self._timed(self._start())

    def _start(self) -> Any:
        if os.name != "posix":
            return super().__iter__()
        former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)

    def _timed(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.wait_s += time.perf_counter() - began
            if batch is None:
                return
            yield batch


class EpochLoader(WindowLoader):
    """Batches of one training epoch, whose state is how many of them were trained on.

    Lightning keeps the state of such a loader in its checkpoints. Batches are a function of position alone, so the rest
    of the epoch is the same with any number of worker processes.

    Args:
        dataset: the windows of the epoch.
        batch_size: windows per batch.
        num_workers: worker processes.
        epoch: number of the epoch.
        trainer: the one that asks for the loader, if there is one.
    """

    def __init__(
        self, dataset: Dataset[Tensor], batch_size: int, num_workers: int, epoch: int, trainer: L.Trainer | None
    ) -> None:
        self.epoch, self.trainer = epoch, trainer
        processes = (trainer and trainer.distributed_sampler_kwargs) or {"num_replicas": 1, "rank": 0}
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=EpochPositions(dataset, **processes),
            num_workers=num_workers,
            worker_init_fn=ignore_termination,
            pin_memory=torch.cuda.is_available(),
        )

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and its batches that went through the model; batches that workers hold ready do not count."""
        assert self.trainer is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return {"epoch": self.epoch, "batches": done.processed}  # type: ignore[attr-defined]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out the batches that the state counts, if it is one of this epoch."""
        assert isinstance(self.sampler, EpochPositions)
        assert self.batch_size is not None
        self.sampler.used = state["batches"] * self.batch_size if state["epoch"] == self.epoch else 0


def ignore_termination(worker: int) -> None:
    """A worker leaves when its trainer does, also where SIGTERM reaches the whole group of processes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

"""Loaders of windows for one or more processes: of an epoch, begun where it was interrupted, and of a whole split."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from bytelm.errors import ConfigError


class EpochPositions(DistributedSampler[int]):
    """The positions of an epoch in their order, every W-th for each of W processes, without those already used.

    Its length is that of the whole epoch, used positions included: it is what the trainer counts against. Where W does
    not divide an epoch, it goes on from its beginning until each process has as many.

    Args:
        dataset: what the positions are of.
        num_replicas: W, processes that share the epoch.
        rank: the process that asks, 0 to W - 1.
    Attributes:
        used: positions to leave out, of each process.
    """

    def __init__(self, dataset: Dataset[Any], num_replicas: int, rank: int) -> None:
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


class _SharedLoader(WindowLoader):
    """A loader whose windows the processes of a run share out among them."""

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        num_workers: int,
        trainer: L.Trainer | None,
        collate: Callable[..., Any] | None = None,
    ) -> None:
        processes = (trainer and trainer.distributed_sampler_kwargs) or {"num_replicas": 1, "rank": 0}
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=EpochPositions(dataset, **processes),
            num_workers=num_workers,
            collate_fn=collate,
            worker_init_fn=ignore_termination,
            pin_memory=torch.cuda.is_available(),
        )

    @property
    def positions(self) -> EpochPositions:
        """The share of this process."""
        assert isinstance(self.sampler, EpochPositions)
        return self.sampler


class EpochLoader(_SharedLoader):
    """Batches of one training epoch, whose state is how many of them were trained on.

    Lightning keeps the state of such a loader in its checkpoints. Batches are a function of position alone, so the rest
    of the epoch is the same with any number of worker processes; and with any number of training processes that have
    as many windows between them. The last batch of an epoch is smaller where its windows do not fill it.

    Args:
        dataset: the windows of the epoch.
        batch_size: windows per batch.
        num_workers: worker processes.
        epoch: number of the epoch.
        trainer: the one that asks for the loader, if there is one.
        collate: what makes a batch of samples; by default they are stacked.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        num_workers: int,
        epoch: int,
        trainer: L.Trainer | None,
        collate: Callable[..., Any] | None = None,
    ) -> None:
        self.epoch, self.trainer = epoch, trainer
        super().__init__(dataset, batch_size, num_workers, trainer, collate)

    @property
    def windows(self) -> int:
        """Windows of one batch in all processes."""
        assert self.batch_size is not None
        return self.batch_size * self.positions.num_replicas

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and its batches that went through the model; batches that workers hold ready do not count."""
        assert self.trainer is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return {"epoch": self.epoch, "batches": done.processed, "windows": self.windows}  # type: ignore[attr-defined]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out the batches that the state counts, if it is one of this epoch.

        Raises:
            ConfigError: they had another number of windows.
        """
        if state["windows"] != self.windows:
            raise ConfigError(
                f"data.batch_size: found {self.batch_size} for each of {self.positions.num_replicas} processes,"
                f" expected {state['windows']} windows in all, as the run had before"
            )
        assert self.batch_size is not None
        self.positions.used = state["batches"] * self.batch_size if state["epoch"] == self.epoch else 0


class EvaluationLoader(_SharedLoader):
    """Batches of all windows in their order, as many for each process.

    Where the windows do not go round, the last ones of some processes are there twice; :meth:`num_own` tells.

    Args:
        dataset: the windows.
        batch_size: windows per batch and process.
        num_workers: worker processes.
        trainer: the one that asks for the loader, if there is one.
        collate: what makes a batch of samples; by default they are stacked.
    """

    def num_own(self, batch_idx: int) -> int:
        """Windows at the beginning of a batch that no other process, and no batch before it, has."""
        assert self.batch_size is not None
        processes, begin = self.positions.num_replicas, batch_idx * self.batch_size
        own = len(range(self.positions.rank, len(self.dataset), processes))  # type: ignore[arg-type]
        return max(0, min(self.batch_size, own - begin))


def own_windows(loader: Any, batch: Tensor, batch_idx: int) -> int:
    """Windows at the beginning of a batch of ``loader`` that are to be counted: all, where it shares out none."""
    return loader.num_own(batch_idx) if isinstance(loader, EvaluationLoader) else len(batch)


def ignore_termination(worker: int) -> None:
    """A worker leaves when its trainer does, also where SIGTERM reaches the whole group of processes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

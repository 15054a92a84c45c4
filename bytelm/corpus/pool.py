"""Worker processes that each turn one batch after another into a result."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from bytelm.errors import CorpusError

_In = TypeVar("_In")
_Out = TypeVar("_Out")

WORKER_DIED = (
    "a worker process ended before its work was done: out of memory, or a script that builds a corpus "
    'with workers outside of `if __name__ == "__main__":`'
)


@contextmanager
def worker_pool(
    workers: int, initializer: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, spawned; ``initializer`` is called in each with ``arguments``. They end with the context.

    Raises:
        CorpusError: inside the context, when a worker process dies.
    """
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=initializer, initargs=arguments
    )
    try:
        yield pool
    except BrokenProcessPool:
        raise CorpusError(WORKER_DIED) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(
    pool: ProcessPoolExecutor, function: Callable[[_In], _Out], batches: Iterator[_In], in_flight: int
) -> Iterator[_Out]:
    """Results in the order of the batches, with a bounded number of batches under way."""
    waiting: deque[Future[_Out]] = deque()
    for batch in batches:
        waiting.append(pool.submit(function, batch))
        if len(waiting) >= in_flight:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which reaches the whole process group, to the parent: it alone ends the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""Processes that work through the parts of a build, and say as they go how far they are."""

import contextlib
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import IO, Any, final

from bytelm.corpus.pool import WORKER_DIED, ignore_interrupts
from bytelm.errors import BytelmError, CorpusError

try:
    import fcntl
except ImportError:  # Windows, where a second build of the same folder goes unnoticed
    fcntl = None  # type: ignore[assignment]

Work = Callable[[Any, Any], Iterator[Any]]
"""Does one task of a job, and yields messages as it goes; a function of a module, so that other processes find it."""

_LOCK_FILE = "lock"
_LOCK_WAIT_S = 5.0  # workers of a build that was killed end with their next message


@final
class BuildLock:
    """That this process writes into a folder, or helps one that does. It lasts until the process ends.

    Raises:
        CorpusError: on ``alone``, while another build or a worker of one writes there.
    """

    def __init__(self, folder: Path, *, alone: bool) -> None:
        self._file: IO[bytes] | None = None
        if fcntl is None:
            return
        self._file = (folder / _LOCK_FILE).open("ab")
        if alone:
            self._take_alone(folder)
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def _take_alone(self, folder: Path) -> None:
        assert self._file is not None
        until = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    self.release()
                    raise CorpusError(f"{folder}: found another build that writes here, expected none") from None
                time.sleep(0.05)
            except OSError:  # a file system without locks
                return
            else:
                return

    def release(self) -> None:
        """Let others write."""
        if self._file is not None:
            self._file.close()


@final
class Team:
    """Worker processes, or this process where there are none.

    They are spawned on entering and end on leaving, at once where an exception passes. A worker whose parent was killed
    ends with its next message.

    Args:
        workers: processes; 0 works in this one.
        job: goes to each of them.
        folder: that they write into.
    """

    def __init__(self, workers: int, job: Any, folder: Path) -> None:
        self._job, self._folder, self._workers = job, folder, workers
        self._members: dict[Connection, Any] = {}

    def __enter__(self) -> "Team":
        context = multiprocessing.get_context("spawn")
        for _ in range(self._workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._job, self._folder), daemon=True)
            process.start()
            theirs.close()
            self._members[ours] = process
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self.stop()
        for connection, process in self._members.items():
            connection.close()
            process.join()

    def stop(self) -> None:
        """End the workers at once."""
        for process in self._members.values():
            process.terminate()
            process.join()

    def run(self, work: Work, tasks: Iterable[Any]) -> Generator[Any, None, None]:
        """Do tasks, which are begun in their order; the messages of all, as they come.

        Raises:
            BytelmError: what a task raises.
            CorpusError: a worker process died.
        """
        if not self._members:
            for task in tasks:
                yield from work(self._job, task)
            return
        waiting = deque(tasks)
        busy: list[Connection] = []
        idle = list(self._members)
        try:
            while waiting or busy:
                while waiting and idle:
                    busy.append(idle.pop())
                    busy[-1].send((work, waiting.popleft()))
                for connection in wait(busy):
                    assert isinstance(connection, Connection)
                    message = connection.recv()
                    if isinstance(message, BytelmError):
                        raise message
                    if message is not None:
                        yield message
                    else:
                        busy.remove(connection)
                        idle.append(connection)
        except (EOFError, ConnectionError):
            raise CorpusError(WORKER_DIED) from None


def _serve(connection: Connection, job: Any, folder: Path) -> None:
    """Do what comes through the connection until it is closed; None ends the messages of a task."""
    ignore_interrupts()
    lock = None
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            work, task = connection.recv()
            lock = lock or BuildLock(folder, alone=False)
            try:
                for message in work(job, task):
                    connection.send(message)
            except BytelmError as error:
                connection.send(error)
            else:
                connection.send(None)

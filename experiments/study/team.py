"""Cells in several processes, which may share one GPU: models this small leave most of it idle."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from .grid import read_study
from .runner import Job, Outcome, Place, Together, run_cell

_PACKAGE = __package__ or ""
_ROOT = Path(__file__).parents[_PACKAGE.count(".") + 1]


def run_in_processes(place: Place, number: int, minutes: float | None = None) -> Together:
    """Cells in so many processes of one thread each, every one with its own CUDA context.

    A process that dies costs the cell that it was at; another one takes its place.

    Args:
        place: where cells are run.
        number: of processes.
        minutes: after which those still at work are ended, and no more is begun; what was finished is kept.
    """

    def run(jobs: Sequence[Job], tell: Callable[[Job, Outcome], None]) -> None:
        end = None if minutes is None else time.monotonic() + 60 * minutes
        waiting, lock = iter(jobs), threading.Lock()

        def work(index: int) -> None:
            with contextlib.closing(_Process(place, index, end)) as process:
                while True:
                    with lock:
                        job = None if process.is_late() else next(waiting, None)
                    if job is None:
                        return
                    outcome = process.run(job)
                    with lock:
                        tell(job, outcome)

        with ThreadPoolExecutor(number) as threads:
            list(threads.map(work, range(min(number, len(jobs)))))

    return run


class _Process:
    """Runs cells one after the other; begun when there is one, and again after it died."""

    def __init__(self, place: Place, index: int, end: float | None) -> None:
        self._place, self._end = place, end
        self._log = place.out / place.size / "logs" / f"{index}.log"
        self._process: subprocess.Popen[str] | None = None
        self._timer: threading.Timer | None = None

    def is_late(self) -> bool:
        """Whether the time is over."""
        return self._end is not None and time.monotonic() >= self._end

    def run(self, job: Job) -> Outcome:
        """One cell."""
        began = time.perf_counter()
        process = self._process or self._begin()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"study": job.study.number, "cell": job.cell.name}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        if answer:
            return Outcome(**json.loads(answer))
        process.kill()
        self.close()
        seconds, why = time.perf_counter() - began, f"the process ended, see {self._log}"
        return Outcome(seconds, late=True) if self.is_late() else Outcome(seconds, error=why)

    def close(self) -> None:
        """Let the process end, which has no cell; the next one gets another process."""
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None:
            self._process.communicate()
        self._process = None

    def _begin(self) -> "subprocess.Popen[str]":
        place = self._place
        self._log.parent.mkdir(parents=True, exist_ok=True)
        given = ("data", place.data), ("device", place.device)
        options = [word for name, value in given if value is not None for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", _PACKAGE, "work", "--size", place.size, "--out", str(place.out), *options]
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            )
        if self._end is not None:
            self._timer = threading.Timer(max(0.0, self._end - time.monotonic()), self._process.kill)
            self._timer.start()
        return self._process


def serve_cells(place: Place, source: TextIO, answers: TextIO) -> None:
    """The other side: a line names a cell, a line says what became of it, until there are no more.

    Args:
        place: where cells are run.
        source: has the cells.
        answers: gets the outcomes, and nothing else.
    """
    shop = place.shop()
    for line in source:
        asked = json.loads(line)
        study = read_study(asked["study"])
        (cell,) = (one for one in study.cells(place.size) if one.name == asked["cell"])
        answers.write(json.dumps(asdict(run_cell(Job(study, cell), place, shop))) + "\n")
        answers.flush()

"""Results on standard output, everything else on standard error."""

import contextlib
import json
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

BAR_AFTER_S = 2.0
"""Seconds after which work that goes on shows how far it has come."""

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def set_quiet(wanted: bool) -> None:
    """Show no progress and write no notes from here on, or do so again. Warnings and errors are always written."""
    _quiet.set(wanted)


def is_quiet() -> bool:
    """Whether somebody asked for quiet."""
    return _quiet.get()


def shows_progress() -> bool:
    """Whether progress is shown: standard error is a terminal, and nobody asked for quiet."""
    from rich.console import Console

    return not _quiet.get() and Console(stderr=True).is_terminal


def write_line(text: str, end: str = "\n") -> None:
    """Write text and ``end`` to standard output at once; what its character set lacks is written as an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding) + end, nl=False)


def write_result(result: Mapping[str, Any], text: str, as_json: bool) -> None:
    """The result of a command: one line of JSON, or text for people."""
    if as_json:
        ascii_only = (sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8"
        write_line(json.dumps(finite(result), ensure_ascii=ascii_only, allow_nan=False))
    elif text:
        write_line(text)


def finite(value: Any) -> Any:
    """The value with null in the place of NaN and infinity, which JSON does not know."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {key: finite(item) for key, item in value.items()}
        case list() | tuple():
            return [finite(item) for item in value]
        case _:
            return value


def write_error(message: str) -> None:
    """One line on standard error, whatever ``message`` holds."""
    line = " ".join(f"bytelm: {message}".split())
    typer.echo(line.encode("utf-8", "backslashreplace").decode("utf-8"), err=True)


def write_note(message: str) -> None:
    """One line on standard error that is neither a result nor an error, such as the speed of what was done."""
    if not _quiet.get():
        write_error(message)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Columns padded to their width on a terminal; ``align`` holds ``l`` or ``r`` for each."""
    from rich.cells import cell_len

    lines = [header, *rows]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(_pad(*cell) for cell in zip(line, widths, align, strict=True)).rstrip() for line in lines
    )


def _pad(text: str, width: int, align: str) -> str:
    from rich.cells import cell_len

    space = " " * (width - cell_len(text))
    return text + space if align == "l" else space + text


@contextlib.contextmanager
def progress_bar(*columns: Any) -> Iterator["Progress"]:
    """A progress display on standard error where :func:`shows_progress`; it disappears when the work ends.

    It appears after ``BAR_AFTER_S``, so that quick work shows none.
    """
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=4,
        redirect_stdout=False,
        disable=not shows_progress(),
    )
    appear = threading.Timer(BAR_AFTER_S, progress.start)
    appear.daemon = True
    if not progress.disable:
        appear.start()
    try:
        yield progress
    finally:
        appear.cancel()
        if appear.is_alive():  # it may be starting the display
            appear.join()
        if progress.live.is_started:
            progress.stop()


@contextlib.contextmanager
def count_progress(
    description: str, total: float | None = None, unit: str | None = None
) -> Iterator[Callable[[float], None]]:
    """A progress bar of work that is counted; call what it yields with how much more is done.

    Args:
        description: what is done.
        total: how much there is; None where that is not known.
        unit: what is counted, to be written; None to write no counts.
    """
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    of = "" if total is None else f" of {total:,.0f}"
    counts = () if unit is None else (TextColumn(f"{{task.completed:,.0f}}{of} {unit}"),)
    with progress_bar(TextColumn("{task.description}"), BarColumn(), *counts, TimeElapsedColumn()) as bar:
        task = bar.add_task(description, total=total)
        yield lambda more: bar.advance(task, more)


@contextlib.contextmanager
def working(description: str) -> Iterator[None]:
    """A progress bar of work that cannot be counted, with the time that it takes."""
    with count_progress(description):
        yield

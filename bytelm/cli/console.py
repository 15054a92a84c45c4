"""Results on standard output, everything else on standard error."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


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
    """A progress display on standard error, where that is a terminal; it disappears when the work ends."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal
    ) as progress:
        yield progress

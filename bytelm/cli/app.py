"""The commands under one name, and what becomes of their errors."""

import itertools
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from bytelm.cli.bench import bench
from bytelm.cli.compare import compare
from bytelm.cli.console import write_error, write_line
from bytelm.cli.corpus import corpus
from bytelm.cli.encoding import encoding
from bytelm.cli.export import export
from bytelm.cli.generate import generate
from bytelm.cli.plan import PLAN, plan
from bytelm.cli.score import score
from bytelm.cli.tokenizer import tokenizer
from bytelm.cli.training import PASS_THROUGH, demo, fit, test, validate
from bytelm.errors import BytelmError

app = typer.Typer(
    name="bytelm",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.add_typer(encoding)
app.add_typer(corpus)
app.add_typer(tokenizer)
app.command(**PASS_THROUGH)(fit)
app.command(**PASS_THROUGH)(validate)
app.command(**PASS_THROUGH)(test)
app.command()(export)
app.command(**PLAN)(plan)
app.command()(generate)
app.command()(score)
app.command()(compare)
app.add_typer(bench)

# Some versions of typer bring a click of their own: this is the UsageError of the one in use.
_UsageError: Any = typer.BadParameter.__bases__[0]

_BAD_INPUT, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141


def _show_version(wanted: bool) -> bool:
    if wanted:
        try:
            found = version("bytelm")
        except PackageNotFoundError:
            found = "of unknown version"
        write_line(f"bytelm {found}")
        raise typer.Exit
    return wanted


@app.callback()
def bytelm(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Byte-level language models that predict several bytes at once.

    With --json, the last line of standard output is one JSON object; progress and logs go to standard error. The exit
    status is 0 when the work was done, 2 for bad input (with one line that says what is wrong), 1 for an internal
    error, 130 after Ctrl-C, and 75 when fit has saved its state after SIGTERM.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        args: the arguments after the program's name; those of the process by default.
    """
    args = list(sys.argv[1:] if args is None else args)
    try:
        status = _run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        write_error("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        return _BROKEN_PIPE
    except BytelmError as error:
        write_error(f"error: {error}")
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "bytelm"
        write_error(f"error: {error.format_message()}{_found(error, args)} (see {command} --help)")
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        write_error(f"error: {where}{error.strerror or error}")
    return _BAD_INPUT


def _run(args: Sequence[str]) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context("bytelm", list(args)) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except SystemExit as done:  # of LightningCLI, after --help and --print_config
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


def _found(usage_error: Any, args: Sequence[str]) -> str:
    """The value of the option that a usage error is about: not every version of typer names it."""
    options = getattr(getattr(usage_error, "param", None), "opts", [])
    values = [value for name, value in itertools.pairwise(args) if name in options]
    return f", found {values[-1]!r}" if values and values[-1] not in usage_error.format_message() else ""

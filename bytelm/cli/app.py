"""The commands under one name, and what becomes of their errors."""

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from bytelm.cli.bench import bench
from bytelm.cli.compare import compare
from bytelm.cli.console import set_quiet, write_error, write_line
from bytelm.cli.convert import convert
from bytelm.cli.corpus import corpus
from bytelm.cli.encoding import encoding
from bytelm.cli.eval import evaluate
from bytelm.cli.examples import format_examples
from bytelm.cli.export import export
from bytelm.cli.generate import generate
from bytelm.cli.interrupts import outside_of_torch_import
from bytelm.cli.overview import Overview
from bytelm.cli.plan import PLAN, plan
from bytelm.cli.push import card, push
from bytelm.cli.score import score
from bytelm.cli.serve import serve
from bytelm.cli.tokenizer import tokenizer
from bytelm.cli.training import PASS_THROUGH, demo, fit, test, validate
from bytelm.errors import BytelmError

_TEXT, _TRAIN, _USE, _JUDGE, _SHARE = "text", "train", "use", "judge", "share"
"""Groups of commands in ``bytelm --help``."""

app = typer.Typer(
    name="bytelm",
    cls=Overview,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel="start")(demo)
app.add_typer(encoding, rich_help_panel=_TEXT)
app.add_typer(corpus, rich_help_panel=_TEXT)
app.add_typer(tokenizer, rich_help_panel=_TEXT)
app.command(rich_help_panel=_TRAIN, **PLAN)(plan)
app.command(rich_help_panel=_TRAIN, **PASS_THROUGH)(fit)
app.command(rich_help_panel=_TRAIN, **PASS_THROUGH)(validate)
app.command(rich_help_panel=_TRAIN, **PASS_THROUGH)(test)
app.command(rich_help_panel=_TRAIN)(export)
app.command(rich_help_panel=_USE)(generate)
app.command(rich_help_panel=_USE)(score)
app.command(rich_help_panel=_USE)(serve)
app.command(rich_help_panel=_JUDGE)(compare)
app.command("eval", rich_help_panel=_JUDGE)(evaluate)
app.add_typer(bench, rich_help_panel=_JUDGE)
app.command(rich_help_panel=_SHARE)(convert)
app.command(rich_help_panel=_SHARE)(card)
app.command(rich_help_panel=_SHARE)(push)

# Some versions of typer bring a click of their own: this is the UsageError of the one in use.
_UsageError: Any = typer.BadParameter.__bases__[0]

_BAD_INPUT, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141
_COMPLETION = "_BYTELM_COMPLETE"


def _show_version(wanted: bool) -> bool:
    if wanted:
        try:
            found = version("bytelm")
        except PackageNotFoundError:
            found = "of unknown version"
        write_line(f"bytelm {found}")
        raise typer.Exit
    return wanted


def _be_quiet(wanted: bool) -> bool:
    if wanted:
        set_quiet(True)
    return wanted


_Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
]
_Quiet = Annotated[
    bool, typer.Option("--quiet", callback=_be_quiet, expose_value=False, help="No progress, no notes; errors are.")
]


@app.callback()
def bytelm(show_version: _Version = False, quiet: _Quiet = False) -> None:
    """Byte-level language models that predict several bytes at once.

    bytelm COMMAND --help has options and examples. Exit status 2: bad input.
    """


def build_command() -> Any:
    """The program as a command of click: with examples in the help of every command, and ``--quiet`` in each."""
    program: Any = typer.main.get_command(app)
    quiet = next(param for param in program.params if param.name == "quiet")
    for name, command in walk_commands(program):
        command.epilog = format_examples(name)
        if not hasattr(command, "commands"):
            command.params.append(quiet)
    return program


def walk_commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The commands below a group, and the groups, each with the words that call it."""
    for word, command in group.commands.items():
        name = f"{path} {word}".strip()
        yield name, command
        if hasattr(command, "commands"):
            yield from walk_commands(command, name)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        args: the arguments after the program's name; those of the process by default.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    set_quiet(False)
    try:
        with outside_of_torch_import():
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
    command = build_command()
    try:
        if os.environ.get(_COMPLETION):  # a shell asks: what it completes is written, and the process ends
            command.main(args, prog_name="bytelm")
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

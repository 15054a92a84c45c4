"""The commands that train: ``bytelm fit | validate | test``, which are LightningCLI's, and ``bytelm demo``."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bytelm.cli.arguments import Json
from bytelm.cli.completions import PassThroughCommand
from bytelm.cli.console import set_quiet, write_result

PASS_THROUGH: Mapping[str, Any] = {
    "cls": PassThroughCommand,
    "add_help_option": False,
    "context_settings": {"ignore_unknown_options": True, "allow_interspersed_args": False},
    "options_metavar": "",
}
"""Settings of a command that leaves all its arguments to another parser."""

_OF_ALL_COMMANDS = ("--json", "--quiet")

_Rest = Annotated[list[str] | None, typer.Argument(metavar="[LIGHTNING OPTIONS]", show_default=False)]


def fit(args: _Rest = None) -> None:
    """Train a model with LightningCLI.

    --config FILE.yaml, and the options below; or --resume RUN, which goes on with the run in that folder, from its last
    good checkpoint and with its configuration. --twin next-byte trains the control of K = 1 in the model's place,
    --twin FOLDER that of tokens of the BPE there. --model.frozen FOLDER, which changes the options, trains draft heads
    for the model there. With --json, the last line of standard output is one JSON object; --quiet shows no progress.

    JSON fields: command, run, model, step, epoch, metrics.
    """
    _lightning("fit", args or [])


def validate(args: _Rest = None) -> None:
    """Measure a checkpoint on the validation corpus.

    --config FILE.yaml --ckpt_path FILE.ckpt, and the options below. --json and --quiet as for fit.

    JSON fields: command, run, metrics.
    """
    _lightning("validate", args or [])


def test(args: _Rest = None) -> None:  # noqa: PT028 (a command)
    """Measure a checkpoint on the test corpus.

    --config FILE.yaml --ckpt_path FILE.ckpt, and the options below. --json and --quiet as for fit.

    JSON fields: command, run, metrics.
    """
    _lightning("test", args or [])


def _lightning(name: str, given: Sequence[str]) -> None:
    from bytelm.cli.lightning import run

    args = [arg for arg in given if arg not in _OF_ALL_COMMANDS]
    if "--quiet" in given:
        set_quiet(True)
    result = run([name, *args])
    if result is not None:
        text = "\n".join(f"{field}: {value}" for field, value in _flat(result).items())
        write_result({"command": name, **result}, text, as_json="--json" in given)


def _flat(result: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {name: f"{value:.4f}" for name, value in result["metrics"].items()}
    return {**{field: value for field, value in result.items() if field != "metrics"}, **metrics}


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for everything that is written.")] = Path(
        "demo"
    ),
    steps: Annotated[int | None, typer.Option("--steps", metavar="N", min=1, help="Optimiser steps.")] = None,
    json: Json = False,
) -> None:
    """Run the whole path on the embedded default text.

    Corpus, fit, score and generate, with a table of results and pictures.

    JSON fields: command, and those of DIR/report.json.
    """
    from rich.console import Console

    from bytelm.cli.demo import demo_json, run_demo

    console = Console(stderr=json, file=None if json else sys.stdout)
    with contextlib.redirect_stdout(sys.stderr):
        report = run_demo(out, console, **({} if steps is None else {"steps": steps}))
    write_result({"command": "demo", **demo_json(report)}, "", json)

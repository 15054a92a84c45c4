"""The command line of the studies."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bytelm.errors import BytelmError

from .grid import SIZES, find_studies, read_study
from .render import render_index, render_study
from .runner import run_study

_DATA = "BYTELM_STUDY_DATA"


def main(args: Sequence[str] | None = None) -> int:
    """Obey one command; 2 for bad input, with one line that says what is wrong.

    Args:
        args: those of the process by default.
    """
    options = _parser().parse_args(args)
    try:
        _obey(options)
    except BytelmError as error:
        print(f"study: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and measure the cells of a study that are not finished")
    run.add_argument("number", help="01, 02, …")
    run.add_argument("--size", choices=SIZES, default="cpu", help="smoke: seconds, embedded text; default: cpu")
    run.add_argument("--only", metavar="CELL", action="append", help="cells whose names hold this; may be repeated")
    run.add_argument(
        "--data",
        type=Path,
        default=os.environ.get(_DATA),
        help=f"folder of ja_train.jsonl.xz and so on; default: ${_DATA}. The smoke size needs none",
    )
    run.add_argument("--out", type=Path, default=Path("runs/studies"), help="corpora, runs, finished cells")
    run.add_argument("--results", type=Path, default=None, help="where results.json goes; default: the study's folder")
    render = commands.add_parser("render", help="write README.md and pictures from results.json")
    render.add_argument("number", nargs="?", help="01, 02, …; default: all, and the index")
    commands.add_parser("list", help="all studies, and what was run of them")
    return parser


def _obey(options: argparse.Namespace) -> None:
    match options.command:
        case "run":
            study = read_study(options.number)
            run_study(study, options.size, options.only or [], options.data, options.out, options.results)
            if options.results is None and options.size != "smoke":
                render_study(study)
                render_index()
        case "render":
            for study in [read_study(options.number)] if options.number else find_studies():
                render_study(study)
            render_index()
        case "list":
            for study in find_studies():
                print(f"{study.number}  {study.title}: {study.state()}")


if __name__ == "__main__":
    raise SystemExit(main())

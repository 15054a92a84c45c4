"""The command line of the studies."""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bytelm.errors import BytelmError, ConfigError

from .grid import SIZES, Study, find_studies, read_study
from .render import render_index, render_study
from .runner import Place, choose, run_here, run_studies
from .speeds import measure_speeds
from .team import run_in_processes, serve_cells

_DATA = "BYTELM_STUDY_DATA"


def main(args: Sequence[str] | None = None) -> int:
    """Obey one command; 2 for bad input or a cell that failed, with one line that says what is wrong.

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
    run = commands.add_parser("run", help="train and measure the cells of studies that are not finished")
    run.add_argument("--jobs", type=int, metavar="N", help="processes of one thread; default: in this one")
    run.add_argument("--minutes", type=float, metavar="M", help="end cells that are not done then (needs --jobs)")
    run.add_argument("--only", metavar="CELL", action="append", help="cells whose names hold this; repeatable")
    speeds = commands.add_parser("speeds", help="time a forward of every model of a study, all in turns in one run")
    for command in (run, speeds):
        command.add_argument("numbers", nargs="+", metavar="NUMBER", help="01, 02, …; several are run seed by seed")
        command.add_argument("--results", type=Path, help="for results.json, of each; default: where studies are")
    work = commands.add_parser("work", help="what --jobs starts: reads cells from standard input")
    for command in (run, speeds, work):
        command.add_argument("--size", choices=SIZES, default="cpu", help="smoke: seconds, embedded text; default: cpu")
        command.add_argument("--device", choices=["cpu", "cuda"], help="default: as the size has it")
        command.add_argument("--out", type=Path, default=Path("runs/studies"), help="corpora, runs, finished cells")
        command.add_argument(
            "--data",
            type=Path,
            default=os.environ.get(_DATA),
            help=f"folder of ja_train.jsonl.xz and so on; default: ${_DATA}. The smoke size needs none",
        )
    render = commands.add_parser("render", help="write README.md and pictures from results.json")
    render.add_argument("number", nargs="?", help="01, 02, …; default: all, and the index")
    commands.add_parser("list", help="all studies, and what was run of them")
    return parser


def _obey(options: argparse.Namespace) -> None:
    match options.command:
        case "run":
            _run(options)
        case "speeds":
            studies, place = [read_study(number) for number in options.numbers], _place(options)
            for study in studies:
                latency = measure_speeds(study, place, options.results)
                print(f"{study.number}: {latency['models']} models, {latency['turns']} turns each")
            _render(studies, options)
        case "work":
            answers = sys.stdout
            with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no answer
                serve_cells(_place(options), sys.stdin, answers)
        case "render":
            for study in [read_study(options.number)] if options.number else find_studies():
                render_study(study)
            render_index()
        case "list":
            for study in find_studies():
                print(f"{study.number}  {study.title}: {study.state()}")


def _run(options: argparse.Namespace) -> None:
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs: found {options.jobs}, expected a number > 0")
    if options.minutes is not None and options.jobs is None:
        raise ConfigError("--minutes: found without --jobs, expected both: only a process beside this one can be ended")
    studies, place = [read_study(number) for number in options.numbers], _place(options)
    jobs = choose(studies, options.size, options.only or [])
    processes = None if options.jobs is None else run_in_processes(place, options.jobs, options.minutes)
    failed = run_studies(jobs, place, processes or run_here(place), options.results)
    _render(studies, options)
    if failed:
        raise ConfigError(f"{len(failed)} of {len(jobs)} cells failed, the first one: {failed[0]}")


def _render(studies: Sequence[Study], options: argparse.Namespace) -> None:
    if options.results is None and options.size != "smoke":
        for study in studies:
            render_study(study)
        render_index()


def _place(options: argparse.Namespace) -> Place:
    return Place(options.size, options.data, options.out, options.device)


if __name__ == "__main__":
    raise SystemExit(main())

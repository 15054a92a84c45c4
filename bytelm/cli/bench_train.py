"""``bytelm bench train``."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bytelm.cli.arguments import Json
from bytelm.cli.console import working, write_result
from bytelm.errors import ConfigError

if TYPE_CHECKING:
    from bytelm.benchmarks.activations import Precision
    from bytelm.benchmarks.coders import Skipped
    from bytelm.cli.bench_train_contenders import Contender

_Config = Annotated[
    list[Path], typer.Option("--config", metavar="FILE", help="As for bytelm fit; may be repeated.", show_default=False)
]
_Beside = Annotated[
    list[Path] | None,
    typer.Option("--beside", metavar="FILE", help="Another configuration in the same turns; may be repeated."),
]
_Precisions = Annotated[
    str | None, typer.Option("--precisions", metavar="NAME,…", help="32-true, bf16-mixed, … Default: as configured.")
]
_Steps = Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Timed steps of a turn.")]
_Repeats = Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Turns of each.")]
_Compile = Annotated[bool, typer.Option("--compile/--no-compile", help="Measure all of it through torch.compile, too.")]
_Rivals = Annotated[bool, typer.Option("--rivals/--no-rivals", help="Measure transformers and litgpt beside it.")]
_RivalVocab = Annotated[
    int | None,
    typer.Option(
        "--rival-vocab", metavar="N", min=1, help="Of the rivals. Default: a head with as many products as ours."
    ),
]
_Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="Of the CPU. Default: torch's choice.")
]
TRAIN: Mapping[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
    "options_metavar": "[OPTIONS] [OPTIONS OF FIT]",
}
"""Settings of the command: options that it does not know are those of ``bytelm fit``."""


@dataclass(frozen=True)
class _Amount:
    """How much is measured."""

    steps: int
    repeats: int
    compile: bool
    rivals: bool
    rival_vocab: int | None


def train(
    context: typer.Context,
    config: _Config,
    beside: _Beside = None,
    precisions: _Precisions = None,
    steps: _Steps = 8,
    repeats: _Repeats = 3,
    compile: _Compile = False,
    rivals: _Rivals = True,
    rival_vocab: _RivalVocab = None,
    threads: _Threads = None,
    json: Json = False,
) -> None:
    """Speed of a training step, in one run beside Llamas of transformers and litgpt with the same body.

    All go through Lightning's trainer on one device, in turns of some steps; figures are medians. Rivals have our
    width, blocks, heads and feed-forward, read one random token where ours reads a patch, and have the same optimiser,
    schedule, clipping and precision. Where the corpus of data.train is not there, the embedded text is read.

    JSON fields: command, config, text, device, threads, steps, repeats, window, batch_size, accumulate_grad_batches,
    positions, rival_vocab, rates (of each precision: dtype, flops, float32), speeds (of each: name, compiled,
    precision, parameters, step_s, cpu_s, positions_per_s, chars_per_s, operations, mfu, mfu_float32, data_share,
    peak_bytes, ratio, cpu_ratio), skipped (name and reason), goals.
    """
    from bytelm.benchmarks.timing import num_threads
    from bytelm.cli.bench_train_contenders import text_folder
    from bytelm.cli.bench_train_report import GOALS, format_report
    from bytelm.cli.lightning import read_settings
    from bytelm.training.quiet import quiet_lightning

    quiet_lightning()
    named = {"bytelm": config, **{path.stem: [path] for path in beside or []}}
    extra = list(context.args)
    settings = {
        name: read_settings([*(part for path in paths for part in ("--config", str(path))), *extra])
        for name, paths in named.items()
    }
    chosen = _precisions(precisions, settings["bytelm"])
    amount = _Amount(steps, repeats, compile, rivals, rival_vocab)
    with tempfile.TemporaryDirectory() as scratch, num_threads(threads) as used, working("measuring steps"):
        corpora = {name: text_folder(each, Path(scratch)) for name, each in settings.items()}
        found = _measure(settings, {name: folder for name, (folder, _) in corpora.items()}, chosen, amount)
    ours = settings["bytelm"]
    result = {
        "command": "bench train",
        "config": [str(path) for path in config],
        "text": {name: text for name, (_, text) in corpora.items()},
        "threads": used,
        "steps": steps,
        "repeats": repeats,
        "window": ours["data"]["window"],
        "batch_size": ours["data"]["batch_size"],
        "accumulate_grad_batches": ours["trainer"]["accumulate_grad_batches"],
        **found,
        "goals": GOALS,
    }
    write_result(result, "" if json else format_report(result), json)


def _precisions(names: str | None, settings: Mapping[str, Any]) -> "list[Precision]":
    from bytelm.benchmarks.activations import check_precision

    given = names.split(",") if names is not None else [str(settings["trainer"]["precision"] or "32-true")]
    option = "--precisions" if names is not None else "trainer.precision"
    try:
        return list(dict.fromkeys(check_precision(name) for name in given))
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def _measure(
    settings: Mapping[str, Mapping[str, Any]],
    corpora: Mapping[str, Path],
    precisions: "Sequence[Precision]",
    amount: _Amount,
) -> dict[str, Any]:
    """Every precision after the other, each with fresh contenders."""
    from bytelm.benchmarks.training_rivals import rival_vocabulary
    from bytelm.cli.bench_train_measure import measure, training_device

    speeds, rates = [], {}
    for precision in precisions:
        contenders, skipped = _contenders(settings, corpora, amount)
        found, rate = measure(contenders, precision, amount.steps, amount.repeats)
        speeds += [asdict(speed) for speed in found]
        rates[precision] = asdict(rate)
    return {
        "device": training_device(contenders[0]),
        "positions": contenders[0].positions,
        "rival_vocab": amount.rival_vocab or rival_vocabulary(contenders[0].model),
        "rates": rates,
        "speeds": speeds,
        "skipped": [asdict(entry) for entry in skipped],
    }


def _contenders(
    settings: Mapping[str, Mapping[str, Any]], corpora: Mapping[str, Path], amount: _Amount
) -> "tuple[list[Contender], list[Skipped]]":
    from bytelm.cli.bench_train_contenders import our_contender, rival_contenders

    contenders: list[Contender] = []
    skipped: list[Skipped] = []
    for compiled in [False, True] if amount.compile else [False]:
        for name, each in settings.items():
            contenders.append(our_contender(name, each, corpora[name], amount.steps, compiled=compiled))
        if amount.rivals:
            found, skipped = rival_contenders(
                settings["bytelm"], contenders[0].model, amount.rival_vocab, amount.steps, compiled=compiled
            )
            contenders += found
    return contenders, skipped

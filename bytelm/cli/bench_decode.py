"""``bytelm bench decode``."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bytelm.cli.arguments import Device, Json, find_device, load_model
from bytelm.cli.bench_report import GOALS, DecodingReport, describe_mode, format_report
from bytelm.cli.console import progress_bar, write_result
from bytelm.cli.prompts import read_prompts
from bytelm.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

    from bytelm.benchmarks import Bandwidth, DecodingSpeed, ForwardCost, RivalSpeed, Skipped, Way
    from bytelm.hub import LanguageModel

_PRESET_ENCODING = "dense-ja"
_DTYPES = ("float32", "bfloat16")

_T = TypeVar("_T", int, float, str)


_OptionalModel = Annotated[
    Path | None, typer.Argument(metavar="[MODEL]", help="Checkpoint folder.", show_default=False)
]
_Preset = Annotated[
    str | None, typer.Option("--preset", metavar="NAME", help="Random weights of this size instead of MODEL.")
]
_PromptsFile = Annotated[
    Path | None,
    typer.Option("--prompts-file", metavar="FILE", help="A prompt on each line, or a .jsonl file. Default: three."),
]
_MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", metavar="N", min=1, help="Symbols each.")]
_Repeats = Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Runs of every way, in turn.")]
_Batches = Annotated[str, typer.Option("--batches", metavar="N,…", help="Rows decoded together.")]
_Temperatures = Annotated[str, typer.Option("--temperatures", metavar="T,…", help="0 for greedy.")]
_Laws = Annotated[str | None, typer.Option("--laws", metavar="LAW,…", help="Default: all of the model.")]
_Drafts = Annotated[str, typer.Option("--drafts", metavar="NAME,…", help="Drafters; heads only where a law has some.")]
_Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the noise of the first row.")]
_Compile = Annotated[bool, typer.Option("--compile/--no-compile", help="Decode through torch.compile.")]
_Dtype = Annotated[str, typer.Option("--dtype", metavar="TYPE", help="float32 or bfloat16.")]
_Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="Of the CPU. Default: torch's choice.")
]
_Rivals = Annotated[bool, typer.Option("--rivals/--no-rivals", help="Measure transformers beside it.")]
_Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the speeds (PNG).")]


@dataclass(frozen=True)
class _Plan:
    """What is measured."""

    prompts: list[str]
    ways: "list[Way]"
    batches: list[int]
    temperatures: list[float]
    max_new_tokens: int
    repeats: int
    seed: int
    compile: bool
    rivals: bool


def decode(
    model: _OptionalModel = None,
    preset: _Preset = None,
    prompts_file: _PromptsFile = None,
    max_new_tokens: _MaxNewTokens = 160,
    repeats: _Repeats = 3,
    batches: _Batches = "1,8,32",
    temperatures: _Temperatures = "0,0.7,1",
    laws: _Laws = None,
    drafts: _Drafts = "none,heads,lookup,auto",
    seed: _Seed = 0,
    compile: _Compile = False,
    dtype: _Dtype = "float32",
    threads: _Threads = None,
    rivals: _Rivals = True,
    plot: _Plot = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Speed of every law and drafter against plain one-byte decoding (law next without a draft), in one run.

    Rows are the prompts in turn, each with a seed of its own; all ways take turns; figures are medians.

    JSON fields: command, model, encoding, parameters, device, dtype, threads, compile, prompts, max_new_tokens,
    repeats, memory (num_bytes and bytes_per_second of reading a large buffer), cache (the same of a buffer of the
    model's size), costs (of each: law, positions, heads, batch, slots, compiled, seconds, ratio,
    bytes_read_per_second, memory_share, cache_share), speeds (of each: law, draft, batch, temperature,
    chars_per_second, utf8_bytes_per_second, symbols_per_second, chars_per_forward, forwards_per_char,
    seconds_per_forward, bytes_read_per_second, acceptance_at, ratio, memory_share, cache_share), rivals (of each: name,
    batch, forwards, seconds_per_forward, symbols_per_second, ratios), skipped (name and reason), goals, plot.
    """
    if plot is not None and not plot.parent.is_dir():
        raise ConfigError(f"--plot: {plot}: found no folder {str(plot.parent)!r}, expected one to write into")
    numbers = (
        _parse("--batches", batches, int, "whole numbers above 0", lambda n: n > 0),
        _parse("--temperatures", temperatures, float, "numbers of at least 0", lambda t: 0 <= t < math.inf),
    )
    from bytelm.benchmarks import decoding_ways
    from bytelm.benchmarks.timing import num_threads
    from bytelm.corpus import DEFAULT_PROMPTS

    given = list(DEFAULT_PROMPTS) if prompts_file is None else [p.text for p in read_prompts([], prompts_file)]
    lm = _open(model, preset, device, dtype)
    ways = decoding_ways(lm, None if laws is None else laws.split(","), drafts.split(","))
    plan = _Plan(given, ways, *numbers, max_new_tokens, repeats, seed, compile, rivals)
    with num_threads(threads) as used:
        found = _measure(lm, plan)
    setting = _setting(lm, plan, str(model) if preset is None else f"random {preset}", dtype, used)
    if plot is not None:
        _draw(plot, setting, found, "characters" if preset is None else "symbols")
    result = {"command": "bench decode", **setting, **found.as_json(), "goals": GOALS.replace("\n", " ")}
    write_result({**result, "plot": None if plot is None else str(plot)}, format_report(setting, found), json)


def _parse(option: str, text: str, kind: type[_T], expected: str, fits: Callable[[_T], bool]) -> list[_T]:
    """Numbers with commas between them, each once, in their order."""
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(map(fits, found)):
        raise ConfigError(f"{option}: found {text!r}, expected {expected}, with commas between them")
    return list(dict.fromkeys(found))


def _open(folder: Path | None, preset: str | None, device: str, dtype: str) -> "LanguageModel":
    """The model in the folder, or one of the preset's size, on the device and in the type."""
    import torch

    from bytelm.encoding import get_encoding
    from bytelm.hub import LanguageModel
    from bytelm.model import build_model
    from bytelm.model.presets import get_preset
    from bytelm.tokenizer import Tokenizer

    if (folder is None) == (preset is None):
        raise ConfigError(
            f"MODEL: found {'none' if folder is None else 'one and --preset'}, expected MODEL or --preset"
        )
    if dtype not in _DTYPES:
        raise ConfigError(f"--dtype: found {dtype!r}, expected one of {', '.join(_DTYPES)}")
    if folder is not None:
        lm = load_model(folder, device)
    else:
        assert preset is not None
        model = build_model(get_preset(preset), device=find_device(device))
        lm = LanguageModel(model, Tokenizer(get_encoding(_PRESET_ENCODING)))
    lm.model.to(getattr(torch, dtype)).eval()
    return lm


def _measure(lm: "LanguageModel", plan: _Plan) -> DecodingReport:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    with progress_bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as bar:
        memory, cache, costs = _measure_machine(lm, plan, bar)
        speeds = _measure_speeds(lm, plan, bar)
        rivals, skipped = _measure_rivals(lm, plan, bar) if plan.rivals else ([], [])
    return DecodingReport(memory, cache, costs, speeds, rivals, skipped)


def _measure_machine(
    lm: "LanguageModel", plan: _Plan, bar: "Progress"
) -> "tuple[Bandwidth, Bandwidth, list[ForwardCost]]":
    """Bandwidths of memory and of what holds the model, and the cost of forwards."""
    from bytelm.benchmarks import measure_bandwidth, measure_forwards, weight_bytes
    from bytelm.benchmarks.bandwidth import LARGE_BUFFER

    laws = list(dict.fromkeys(way.law for way in plan.ways))
    compiled = [False, True] if plan.compile else [False]
    task = bar.add_task("memory and forwards", total=2 + len(compiled))
    found = []
    for size in (LARGE_BUFFER, min(LARGE_BUFFER, weight_bytes(lm.model, lm.law))):
        found.append(measure_bandwidth(size, lm.model.device))
        bar.advance(task)
    costs = []
    for mode in compiled:
        costs += measure_forwards(lm, laws=laws, repeats=5 * plan.repeats, compiled=mode)
        bar.advance(task)
    return found[0], found[1], costs


def _measure_speeds(lm: "LanguageModel", plan: _Plan, bar: "Progress") -> "list[DecodingSpeed]":
    from bytelm.benchmarks import measure_decoding

    settings = [(batch, temperature) for batch in plan.batches for temperature in plan.temperatures]
    task = bar.add_task("ways of decoding", total=len(settings))
    speeds = []
    for batch, temperature in settings:
        speeds += measure_decoding(
            lm,
            plan.prompts,
            ways=plan.ways,
            batch=batch,
            temperature=temperature,
            max_new_tokens=plan.max_new_tokens,
            repeats=plan.repeats,
            compile=plan.compile,
            seed=plan.seed,
        )
        bar.advance(task)
    return speeds


def _measure_rivals(lm: "LanguageModel", plan: _Plan, bar: "Progress") -> "tuple[list[RivalSpeed], list[Skipped]]":
    from bytelm.benchmarks import measure_rivals

    task = bar.add_task("transformers", total=len(plan.batches))
    found: list[RivalSpeed] = []
    skipped: list[Skipped] = []
    for batch in plan.batches:
        speeds, missing = measure_rivals(
            lm,
            plan.prompts[0],
            batch=batch,
            forwards=plan.max_new_tokens,
            repeats=plan.repeats,
            compile=plan.compile,
        )
        found += speeds
        skipped += [entry for entry in missing if entry not in skipped]
        bar.advance(task)
    return found, skipped


def _setting(lm: "LanguageModel", plan: _Plan, name: str, dtype: str, threads: int) -> dict[str, Any]:
    """What the figures hold for."""
    import torch

    device = lm.model.device
    return {
        "model": name,
        "encoding": lm.tokenizer.name,
        "parameters": lm.config.num_parameters(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "dtype": dtype,
        "threads": threads,
        "compile": plan.compile,
        "prompts": len(plan.prompts),
        "max_new_tokens": plan.max_new_tokens,
        "repeats": plan.repeats,
    }


def _draw(path: Path, setting: dict[str, Any], found: DecodingReport, unit: str) -> None:
    """Draw the speeds: characters, or symbols where random weights write no text."""
    from bytelm.evaluation.decoding_plots import plot_decoding

    in_symbols = unit == "symbols"
    first = found.speeds[0]
    chars_per_symbol = {
        speed.batch: 1.0 if in_symbols else speed.chars_per_second / speed.symbols_per_second
        for speed in found.speeds
        if (speed.law, speed.draft, speed.temperature) == (first.law, first.draft, first.temperature)
    }
    plot_decoding(
        path,
        [
            (f"{s.law} {s.draft}", s.batch, s.temperature, s.symbols_per_second if in_symbols else s.chars_per_second)
            for s in found.speeds
        ],
        [
            (r.name, r.batch, r.symbols_per_second * chars_per_symbol[r.batch])
            for r in found.rivals
            if not r.name.startswith("bytelm")
        ],
        [
            (f"{s.law} {s.draft}", s.temperature, s.acceptance_at)
            for s in found.speeds
            if s.batch == first.batch and s.acceptance_at and s.draft != "auto"
        ],
        f"{setting['model']}, {describe_mode(setting)}",
        unit=unit,
        note=""
        if in_symbols or not found.rivals
        else "transformers: its bytes, at the characters per byte of next none",
    )

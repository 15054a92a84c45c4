"""``bytelm bench decode``."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bytelm.cli.arguments import Device, Json, find_device, load_model
from bytelm.cli.bench_report import GOALS, format_costs, format_rivals, format_speeds
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


@dataclass(frozen=True)
class _Found:
    """What was found."""

    memory: "Bandwidth"
    cache: "Bandwidth"
    costs: "list[ForwardCost]"
    speeds: "list[DecodingSpeed]"
    rivals: "list[RivalSpeed]"
    skipped: "list[Skipped]"


def decode(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="Checkpoint folder.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="Random weights of this size instead of MODEL.")
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option("--prompts-file", metavar="FILE", help="A prompt on each line, or a .jsonl file. Default: three."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", metavar="N", min=1, help="Symbols each.")] = 160,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Runs of every way, in turn.")] = 3,
    batches: Annotated[str, typer.Option("--batches", metavar="N,…", help="Rows decoded together.")] = "1,8,32",
    temperatures: Annotated[str, typer.Option("--temperatures", metavar="T,…", help="0 for greedy.")] = "0,0.7,1",
    laws: Annotated[str | None, typer.Option("--laws", metavar="LAW,…", help="Default: all of the model.")] = None,
    drafts: Annotated[
        str, typer.Option("--drafts", metavar="NAME,…", help="Drafters; heads only where a law has some.")
    ] = "none,heads,lookup,auto",
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the noise of the first row.")] = 0,
    compile: Annotated[bool, typer.Option("--compile/--no-compile", help="Decode through torch.compile.")] = False,
    dtype: Annotated[str, typer.Option("--dtype", metavar="TYPE", help="float32 or bfloat16.")] = "float32",
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, help="Of the CPU. Default: torch's choice.")
    ] = None,
    rivals: Annotated[bool, typer.Option("--rivals/--no-rivals", help="Measure transformers beside it.")] = True,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the speeds (PNG).")] = None,
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
    setting = {
        "model": str(model) if preset is None else f"random {preset}",
        "encoding": lm.encoding.name,
        "parameters": lm.config.num_parameters(),
        "device": _device_name(lm),
        "dtype": dtype,
        "threads": used,
        "compile": compile,
        "prompts": len(given),
        "max_new_tokens": max_new_tokens,
        "repeats": repeats,
    }
    if plot is not None:
        _plot(plot, setting, found)
    result = {"command": "bench decode", **setting, **_as_json(found), "goals": GOALS.replace("\n", " ")}
    write_result({**result, "plot": None if plot is None else str(plot)}, _report(setting, found), json)


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
        lm = LanguageModel(model, get_encoding(_PRESET_ENCODING))
    lm.model.to(getattr(torch, dtype)).eval()
    return lm


def _measure(lm: "LanguageModel", plan: _Plan) -> _Found:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    with progress_bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as bar:
        memory, cache, costs = _measure_machine(lm, plan, bar)
        speeds = _measure_speeds(lm, plan, bar)
        rivals, skipped = _measure_rivals(lm, plan, bar) if plan.rivals else ([], [])
    return _Found(memory, cache, costs, speeds, rivals, skipped)


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


def _device_name(lm: "LanguageModel") -> str:
    import torch

    device = lm.model.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _as_json(found: _Found) -> dict[str, Any]:
    """The measurements as plain values; what reads memory with its share of both bandwidths."""

    def shares(rows: "Sequence[DecodingSpeed] | Sequence[ForwardCost]") -> list[dict[str, Any]]:
        return [
            {
                **asdict(row),
                "memory_share": row.bytes_read_per_second / found.memory.bytes_per_second,
                "cache_share": row.bytes_read_per_second / found.cache.bytes_per_second,
            }
            for row in rows
        ]

    return {
        "memory": asdict(found.memory),
        "cache": asdict(found.cache),
        "costs": shares(found.costs),
        "speeds": shares(found.speeds),
        "rivals": [asdict(row) for row in found.rivals],
        "skipped": [asdict(row) for row in found.skipped],
    }


def _report(setting: dict[str, Any], found: _Found) -> str:
    roofs = (found.memory, found.cache)
    memory, cache = (f"{roof.bytes_per_second / 1e9:.3g} GB/s" for roof in roofs)
    mode = "compiled" if setting["compile"] else "not compiled"
    lines = [
        f"{setting['model']}, {setting['encoding']}: {setting['parameters'] / 1e6:.3g}M parameters, {setting['dtype']} "
        f"on {setting['device']}, {setting['threads']} threads, {mode};",
        f"{setting['prompts']} prompts, {setting['max_new_tokens']} symbols a row, median of {setting['repeats']} runs "
        "in turn",
        "",
        f"A buffer of {found.memory.num_bytes / 1e6:,.0f} MB (memory) is read at {memory}, one of "
        f"{found.cache.num_bytes / 1e6:,.3g} MB, as large as the model's matrices (cache), at {cache}.",
        "Shares: what forwards must read, the matrices once and keys and values once a stream, over these.",
        "",
        f"Forwards with {found.costs[0].slots} positions in the cache; times plain: over the body at one position:",
        "",
        format_costs(found.costs, roofs),
        "",
        "Decoding; a forward of a batch counts once for each row; times plain: characters/s over next without a draft; "
        "accepted: of the drafts 1, 2, … that were judged:",
        "",
        format_speeds(found.speeds, roofs),
    ]
    if found.rivals:
        lines += [
            "",
            "The same number of forwards, greedy, prefill included; transformers on a Llama of the same body with "
            "random weights, a symbol a forward:",
            "",
            format_rivals(found.rivals),
        ]
    if found.skipped:
        lines += ["", *(f"not measured: {entry.name}: {entry.reason}" for entry in found.skipped)]
    return "\n".join([*lines, "", GOALS])


def _plot(path: Path, setting: dict[str, Any], found: _Found) -> None:
    from bytelm.evaluation.decoding_plots import plot_decoding

    plain = {
        speed.batch: speed.chars_per_second / speed.symbols_per_second
        for speed in found.speeds
        if (speed.law, speed.draft, speed.temperature) == ("next", "none", found.speeds[0].temperature)
    }
    plot_decoding(
        path,
        [(f"{s.law} {s.draft}", s.batch, s.temperature, s.chars_per_second) for s in found.speeds],
        [
            (r.name, r.batch, r.symbols_per_second * plain[r.batch])
            for r in found.rivals
            if not r.name.startswith("bytelm")
        ],
        [
            (f"{s.law} {s.draft}", s.temperature, s.acceptance_at)
            for s in found.speeds
            if s.batch == found.speeds[0].batch and s.acceptance_at
        ],
        f"{setting['model']}, {setting['dtype']} on {setting['device']}, {setting['threads']} threads, "
        f"{'compiled' if setting['compile'] else 'not compiled'}",
    )

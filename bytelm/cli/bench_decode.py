"""``bytelm bench decode``."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bytelm.cli.arguments import DTYPES, Device, Json
from bytelm.cli.bench_measure import Options, Plan, measure
from bytelm.cli.bench_model import open_model
from bytelm.cli.bench_report import GOALS, DecodingReport, describe_mode, format_report
from bytelm.cli.console import write_result
from bytelm.cli.prompts import read_prompts
from bytelm.errors import ConfigError

if TYPE_CHECKING:
    from bytelm.hub import LanguageModel

_T = TypeVar("_T", int, float, str)


_OptionalModel = Annotated[
    Path | None, typer.Argument(metavar="[MODEL]", help="Checkpoint folder.", show_default=False)
]
_Preset = Annotated[
    str | None, typer.Option("--preset", metavar="NAME", help="Random weights of this size instead of MODEL.")
]
_RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="What --preset has anyway: noise, made at the speed of memory.")
]
_PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts-file",
        metavar="FILE",
        help="A prompt on each line, or a .jsonl file. Default: three; large: a single letter.",
    ),
]
_MaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", metavar="N", min=1, help="Symbols each. Default: 160; large: 16.")
]
_Repeats = Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Runs of every way, in turn.")]
_Batches = Annotated[
    str | None, typer.Option("--batches", metavar="N,…", help="Rows decoded together. Default: 1,8,32; large: 1.")
]
_Temperatures = Annotated[
    str | None, typer.Option("--temperatures", metavar="T,…", help="0 for greedy. Default: 0,0.7,1; large: 0.")
]
_Laws = Annotated[str | None, typer.Option("--laws", metavar="LAW,…", help="Default: all of the model.")]
_Drafts = Annotated[
    str | None,
    typer.Option(
        "--drafts",
        metavar="NAME,…",
        help="Drafters; heads only where a law has some. Default: none,heads,lookup,auto; large: none.",
    ),
]
_Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the noise of the first row.")]
_Compile = Annotated[
    bool, typer.Option("--compile/--no-compile", help="Decode through torch.compile, and on a GPU CUDA graphs.")
]
_Dtype = Annotated[str, typer.Option("--dtype", metavar="TYPE", help=f"{', '.join(DTYPES)}; also fp32, bf16, fp16.")]
_Int8 = Annotated[bool, typer.Option("--int8", help="Measure plain decoding with int8 weights, too (torchao).")]
_Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="Of the CPU. Default: torch's choice.")
]
_Rivals = Annotated[bool, typer.Option("--rivals/--no-rivals", help="Measure transformers beside it.")]
_Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the speeds (PNG).")]


@dataclass(frozen=True)
class _Amount:
    """How much is measured."""

    drafts: str
    batches: list[int]
    temperatures: list[float]
    max_new_tokens: int


_LARGE_PARAMETERS = 10**9
_USUAL = _Amount("none,heads,lookup,auto", [1, 8, 32], [0.0, 0.7, 1.0], 160)
_LARGE = _Amount("none", [1], [0.0], 16)


def decode(
    model: _OptionalModel = None,
    preset: _Preset = None,
    random_weights: _RandomWeights = False,
    prompts_file: _PromptsFile = None,
    max_new_tokens: _MaxNewTokens = None,
    repeats: _Repeats = 3,
    batches: _Batches = None,
    temperatures: _Temperatures = None,
    laws: _Laws = None,
    drafts: _Drafts = None,
    seed: _Seed = 0,
    compile: _Compile = False,
    dtype: _Dtype = "float32",
    int8: _Int8 = False,
    threads: _Threads = None,
    rivals: _Rivals = True,
    plot: _Plot = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Speed of every law and drafter against plain decoding (law next without a draft), in one run.

    Rows are the prompts in turn, each with a seed of its own; all ways take turns; figures are medians. A model on a
    CPU is large from a billion parameters on. Random weights write no text: characters mean nothing with a preset.

    JSON fields: command, model, encoding, parameters, device, dtype, threads, compile, prompts, max_new_tokens,
    repeats, memory (num_bytes and bytes_per_second of reading a large buffer), cache (the same of a buffer of the
    model's size), step (a plain greedy step at batch 1: seconds, symbols_per_second, bytes_read_per_second,
    linear_share, ratio, memory_share, cache_share), linear (of each: through, rows, seconds, ratio,
    bytes_read_per_second, memory_share, cache_share), costs (of each: law, positions, heads, batch, slots, compiled,
    seconds, ratio, bytes_read_per_second, memory_share, cache_share), speeds (of each: law, draft, batch, temperature,
    chars_per_second, utf8_bytes_per_second, symbols_per_second, chars_per_forward, forwards_per_char,
    seconds_per_forward, bytes_read_per_second, acceptance_at, ratio, memory_share, cache_share), rival (what rivals of
    transformers are), rivals (of each: name, batch, forwards, seconds_per_forward, symbols_per_second, ratios),
    skipped (name and reason), int8 (null, or the same step and linear with such weights; the ratio of its step
    is in symbols a second over the first step, in turn with it), goals, plot.
    """
    _check(plot, preset, random_weights)
    amount = {
        "drafts": drafts,
        "batches": _parse("--batches", batches, int, "whole numbers above 0", lambda n: n > 0),
        "temperatures": _parse(
            "--temperatures", temperatures, float, "numbers of at least 0", lambda t: 0 <= t < math.inf
        ),
        "max_new_tokens": max_new_tokens,
    }
    given = None if prompts_file is None else [p.text for p in read_prompts([], prompts_file)]
    lm = open_model(model, preset, device, dtype)
    plan = _plan(lm, given, laws, amount, Options(repeats, seed, compile, rivals, int8))
    from bytelm.benchmarks.timing import num_threads

    with num_threads(threads) as used:
        found = measure(lm, plan)
    setting = _setting(lm, plan, str(model) if preset is None else f"random {preset}", used)
    if plot is not None:
        _draw(plot, setting, found, "characters" if preset is None else "symbols")
    result = {"command": "bench decode", **setting, **found.as_json(), "goals": GOALS.replace("\n", " ")}
    write_result({**result, "plot": None if plot is None else str(plot)}, format_report(setting, found), json)


def _check(plot: Path | None, preset: str | None, random_weights: bool) -> None:
    if plot is not None and not plot.parent.is_dir():
        raise ConfigError(f"--plot: {plot}: found no folder {str(plot.parent)!r}, expected one to write into")
    if random_weights and preset is None:
        raise ConfigError("--random-weights: found no --preset, expected one")


def _plan(
    lm: "LanguageModel", prompts: list[str] | None, laws: str | None, amount: dict[str, Any], options: Options
) -> Plan:
    """What was asked for, and what is usual for the size of the model in the place of None."""
    from bytelm.benchmarks import decoding_ways
    from bytelm.corpus import DEFAULT_PROMPTS

    large = lm.config.num_parameters() >= _LARGE_PARAMETERS and lm.model.device.type == "cpu"
    asked = {name: value for name, value in amount.items() if value is not None}
    chosen = replace(_LARGE if large else _USUAL, **asked)
    return Plan(
        prompts=prompts or (["A"] if large else list(DEFAULT_PROMPTS)),
        ways=decoding_ways(lm, None if laws is None else laws.split(","), chosen.drafts.split(",")),
        batches=chosen.batches,
        temperatures=chosen.temperatures,
        max_new_tokens=chosen.max_new_tokens,
        options=options,
    )


def _parse(option: str, text: str | None, kind: type[_T], expected: str, fits: Callable[[_T], bool]) -> list[_T] | None:
    """Numbers with commas between them, each once, in their order; None for None."""
    if text is None:
        return None
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(map(fits, found)):
        raise ConfigError(f"{option}: found {text!r}, expected {expected}, with commas between them")
    return list(dict.fromkeys(found))


def _setting(lm: "LanguageModel", plan: Plan, name: str, threads: int) -> dict[str, Any]:
    """What the figures hold for."""
    import torch

    device, dtype = lm.model.device, lm.model.norm.weight.dtype
    return {
        "model": name,
        "encoding": lm.tokenizer.name,
        "parameters": lm.config.num_parameters(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "compile": plan.options.compile,
        "prompts": len(plan.prompts),
        "max_new_tokens": plan.max_new_tokens,
        "repeats": plan.options.repeats,
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

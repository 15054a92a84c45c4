"""``bytelm bench``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bytelm.cli.arguments import Device, Json, Model, load_model
from bytelm.cli.console import format_table, write_result
from bytelm.cli.prompts import read_prompts

if TYPE_CHECKING:
    from bytelm.benchmarks import DecodingSpeed


def bench(
    model: Model,
    prompts_file: Annotated[
        Path | None,
        typer.Option("--prompts-file", metavar="FILE", help="A prompt on each line, or a .jsonl file. Default: three."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", metavar="N", min=1, help="Symbols each.")] = 160,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Runs of every law, in turn.")] = 3,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the sampling noise.")] = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Characters per forward and per second of every law, against plain one-byte decoding.

    Plain is the law next without a draft: one forward per byte. Each prompt is decoded alone; all ways take turns.

    JSON fields: command, model, encoding, greedy, sampled (each a list of law, draft, chars_per_forward,
    chars_per_second, ratio).
    """
    from bytelm.benchmarks import measure_decoding
    from bytelm.corpus import DEFAULT_PROMPTS

    given = list(DEFAULT_PROMPTS) if prompts_file is None else [p.text for p in read_prompts([], prompts_file)]
    lm = load_model(model, device)
    found = {
        name: measure_decoding(
            lm, given, max_new_tokens=max_new_tokens, do_sample=do_sample, repeats=repeats, seed=seed
        )
        for name, do_sample in (("greedy", False), ("sampled", True))
    }
    result = {
        "command": "bench",
        "model": str(model),
        "encoding": lm.encoding.name,
        **{name: [asdict(speed) for speed in speeds] for name, speeds in found.items()},
    }
    write_result(result, format_speeds(found), json)


def format_speeds(found: "dict[str, list[DecodingSpeed]]") -> str:
    """A table of measurements, by the kind of sampling."""
    rows = [
        (
            kind,
            speed.law,
            speed.draft,
            f"{speed.chars_per_forward:.2f}",
            f"{speed.chars_per_second:.1f}",
            f"{speed.ratio:.2f}",
        )
        for kind, speeds in found.items()
        for speed in speeds
    ]
    return format_table(("", "law", "draft", "chars/forward", "chars/s", "times plain"), rows, "lllrrr")

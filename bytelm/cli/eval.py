"""``bytelm eval``."""

import json as json_lines
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bytelm.cli.arguments import (
    Attention,
    Device,
    Dtype,
    FourBit,
    Int8,
    Json,
    Revision,
    load_model,
)
from bytelm.cli.console import finite, format_table, working, write_error, write_result
from bytelm.errors import ConfigError

if TYPE_CHECKING:
    from bytelm.evaluation.harness import BytelmLM

_Tasks = Annotated[
    list[str],
    typer.Option(
        "--tasks",
        metavar="NAME,…",
        help="Tasks, groups, patterns or .yaml files; bytelm_all, bytelm_en, bytelm_ja are small ones of our own.",
        show_default=False,
    ),
]
_Model = Annotated[
    Path,
    typer.Option(
        "--model", metavar="MODEL", help="Checkpoint folder, or id of a model on the hub.", show_default=False
    ),
]
_Law = Annotated[
    str | None, typer.Option("--law", metavar="NAME", help="product, chain or next. Default: the model's.")
]
_Draft = Annotated[
    str, typer.Option("--draft", metavar="NAME", help="auto, none, heads or lookup, in generating tasks: speed alone.")
]
_Limit = Annotated[
    float | None, typer.Option("--limit", metavar="N", min=0, help="The first N items of a task; below 1, a share.")
]
_Fewshot = Annotated[
    int | None,
    typer.Option("--num-fewshot", metavar="N", min=0, help="Examples before each item. Default: as the task."),
]
_BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Rows of a forward, at most.")]
_MaxGenToks = Annotated[
    int | None,
    typer.Option("--max-gen-toks", metavar="N", min=1, help="Where a task has no limit: tokens, or patches of bytes."),
]
_GenKwargs = Annotated[
    str | None,
    typer.Option("--gen-kwargs", metavar="K=V,…", help="For generating tasks: do_sample=True,temperature=0.7,…"),
]
_Windows = Annotated[
    str,
    typer.Option("--windows", metavar="NAME", help="Of long texts: overlap, as bytelm score; harness, end to end."),
]
_IncludePath = Annotated[
    Path | None, typer.Option("--include-path", metavar="FOLDER", help="More tasks: a folder of .yaml files.")
]
_Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="TASK=FILE", help="Your copy of the data of a task of ours (.jsonl); repeatable."),
]
_Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="FOLDER", help="Keep answers there (pickled by lm_eval: your own folder only)."),
]
_Bootstrap = Annotated[
    int, typer.Option("--bootstrap", metavar="N", min=0, help="Draws for standard errors without a formula; 0: none.")
]
_Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of few-shot examples and of sampling.")]
_Out = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Write results.json and the answers to each item there.")
]


def evaluate(
    tasks: _Tasks,
    model: _Model,
    law: _Law = None,
    attention: Attention = None,
    draft: _Draft = "auto",
    limit: _Limit = None,
    num_fewshot: _Fewshot = None,
    batch_size: _BatchSize = 8,
    max_gen_toks: _MaxGenToks = None,
    gen_kwargs: _GenKwargs = None,
    windows: _Windows = "overlap",
    include_path: _IncludePath = None,
    data: _Data = None,
    cache: _Cache = None,
    bootstrap: _Bootstrap = 1000,
    seed: _Seed = 1234,
    out: _Out = None,
    dtype: Dtype = None,
    four_bit: FourBit = "dequantise",
    int8: Int8 = False,
    revision: Revision = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Tasks of lm-evaluation-harness; small ones come along.

    Those of ours need no network. Others fetch their data.

    JSON fields: command, model, family, encoding, law, attention, windows, context, tasks, requests,
    truncated_contexts, straddled_boundaries, results (of each: task, items, num_fewshot, metric, filter, value, stderr,
    higher_is_better).
    """
    from bytelm.evaluation import harness

    harness.check_installed()
    names = [name for part in tasks for name in part.split(",") if name]
    if not names:
        raise ConfigError("--tasks: found none, expected names of tasks")
    found = harness.find_tasks(names, include_path, _files(data or []))
    loaded = load_model(model, device, dtype=dtype, four_bit=four_bit, revision=revision, int8=int8)
    sizes: dict[str, Any] = {"batch_size": batch_size, "max_gen_toks": max_gen_toks}
    lm = harness.BytelmLM(loaded, law=law, attention=attention, draft=draft, windows=windows, seed=seed, **sizes)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # before the work, so that a bad path is told at once
    asked: dict[str, Any] = {"limit": limit, "num_fewshot": num_fewshot, "bootstrap": bootstrap, "seed": seed}
    with working("evaluating"):
        results = harness.evaluate(lm, found, cache=cache, gen_kwargs=_keywords(gen_kwargs), **asked)
    _warn(lm)
    rows = harness.rows_of(results)
    result = {"command": "eval", "model": str(model), **_account(lm), "tasks": names, "results": rows}
    if out is not None:
        _write(out, result, results)
    write_result(result, _table(rows), json)


def _files(given: Sequence[str]) -> dict[str, str]:
    """TASK=FILE as a mapping, for files that are there."""
    files = {}
    for item in given:
        task, equals, path = item.partition("=")
        if not equals or not task or not path:
            raise ConfigError(f"--data: found {item!r}, expected TASK=FILE")
        if not Path(path).is_file():
            raise ConfigError(f"--data: {path}: no such file, expected JSON lines for {task}")
        files[task] = path
    return files


def _keywords(text: str | None) -> Mapping[str, Any] | None:
    if text is None:
        return None
    if not all("=" in part for part in text.split(",")):
        raise ConfigError(f"--gen-kwargs: found {text!r}, expected KEY=VALUE,…")
    from lm_eval.utils import simple_parse_args_string

    return simple_parse_args_string(text)


def _account(lm: "BytelmLM") -> dict[str, Any]:
    """What the model is and what had to be cut."""
    info = lm.get_model_info()
    names = ("family", "encoding", "law", "attention", "windows", "context")
    counts = ("requests", "truncated_contexts", "straddled_boundaries")
    return {name: info[name] for name in (*names, *counts)}


def _warn(lm: "BytelmLM") -> None:
    counts = lm.counts
    if counts.truncated:
        write_error(
            f"warning: {counts.truncated} of {counts.requests} contexts were cut at their left to fit {lm.max_length} "
            "symbols"
        )
    if counts.straddled:
        write_error(
            f"warning: in {counts.straddled} of {counts.requests} requests a token reaches over the end of the "
            "context; they were split as the harness does"
        )


def _write(folder: Path, result: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """``results.json``, and a line for each item in ``samples_TASK.jsonl``."""
    kept = {key: results[key] for key in ("config", "configs", "versions", "groups") if key in results}
    _dump(folder / "results.json", [{**result, "harness": kept}], indent=1)
    for task, samples in results.get("samples", {}).items():
        _dump(folder / f"samples_{Path(task).name}.jsonl", samples)


def _dump(path: Path, objects: Sequence[Any], indent: int | None = None) -> None:
    lines = [json_lines.dumps(finite(item), ensure_ascii=False, indent=indent, default=str) for item in objects]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ("task", "items", "shots", "metric", "value", "stderr", "better")
    lines = [
        (
            row["task"],
            "" if row["items"] is None else str(row["items"]),
            "" if row["num_fewshot"] is None else str(row["num_fewshot"]),
            row["metric"] if row["filter"] == "none" else f"{row['metric']} ({row['filter']})",
            _figure(row["value"]),
            "" if row["stderr"] is None else _figure(row["stderr"]),
            {True: "higher", False: "lower"}.get(row["higher_is_better"], ""),
        )
        for row in rows
    ]
    return format_table(header, lines, "lrrlrrl")


def _figure(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.3e}"

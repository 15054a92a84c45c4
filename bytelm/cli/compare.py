"""``bytelm compare``."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bytelm.cli import completions
from bytelm.cli.arguments import Device, Dtype, Field, Json, SkipBadLines, SplitBlankLines, check_text, load_model
from bytelm.cli.compare_report import ComparedLaw, describe_setting, format_comparison
from bytelm.cli.console import finite, progress_bar, write_result
from bytelm.cli.sources import SourceReader
from bytelm.errors import ConfigError, CorpusError, LawError

if TYPE_CHECKING:
    from rich.progress import Progress

    from bytelm.benchmarks.generation_speed import GenerationSpeed
    from bytelm.evaluation.text_windows import TextWindow
    from bytelm.hub import LanguageModel, Score
    from bytelm.model.ends import Law

_ALL, _DEFAULT = "all", "default"

_Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Folders, or ids on the hub; NAME=… to name one.", show_default=False),
]
_Data = Annotated[
    list[str],
    typer.Option("--data", metavar="PATH", help="Text: as for bytelm score; may be repeated.", show_default=False),
]
_Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Read the first N documents.")]
_Window = Annotated[int, typer.Option("--window", metavar="N", min=1, help="Characters scored at a time.")]
_Context = Annotated[int, typer.Option("--context", metavar="N", min=0, help="Characters read before each window.")]
_Laws = Annotated[
    list[str] | None,
    typer.Option(
        "--law",
        metavar="NAME",
        help="product, chain, next, default (of each model) or all; may be repeated.",
        autocompletion=completions.laws_or_all,
    ),
]
_Prompts = Annotated[
    int, typer.Option("--prompts", metavar="N", min=0, help="Documents whose beginnings are continued; 0: no speeds.")
]
_PromptChars = Annotated[int, typer.Option("--prompt-chars", metavar="N", min=1, help="Characters of each prompt.")]
_MaxNewChars = Annotated[int, typer.Option("--max-new-chars", metavar="N", min=1, help="Characters generated each.")]
_Drafts = Annotated[str, typer.Option("--drafts", metavar="NAME,…", help="Drafters; heads only where a law has some.")]
_DraftHeads = Annotated[
    list[str] | None,
    typer.Option("--draft-heads", metavar="NAME=FOLDER", help="Heads that draft for a model of tokens; repeatable."),
]
_Repeats = Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Runs of every way, in turn.")]
_Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="Of the CPU. Default: torch's choice.")
]
_Out = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Write pareto.png and comparison.json there.")
]


@dataclass(frozen=True)
class _Model:
    """A model to compare."""

    source: str
    lm: "LanguageModel"
    laws: "list[Law]"


@dataclass(frozen=True)
class _Text:
    """Documents with their places, and how they are cut."""

    documents: list[tuple[str, str]]
    window: int
    context: int

    def windows(self) -> "list[TextWindow]":
        from bytelm.evaluation.text_windows import cut_windows

        return [one for place, text in self.documents for one in cut_windows(place, text, self.window, self.context)]

    def setting(self) -> dict[str, Any]:
        return {
            "documents": len(self.documents),
            "characters": sum(len(text) for _, text in self.documents),
            "utf8_bytes": sum(len(text.encode()) for _, text in self.documents),
            "window": self.window,
            "context": self.context,
        }


@dataclass(frozen=True)
class _Generation:
    """What the speeds are measured of."""

    prompts: list[str]
    prompt_chars: int
    max_new_chars: int
    repeats: int
    drafts: list[str]

    def setting(self) -> dict[str, Any]:
        return {
            "prompts": len(self.prompts),
            "prompt_chars": self.prompt_chars,
            "max_new_chars": self.max_new_chars,
            "repeats": self.repeats,
        }


def compare(
    models: _Models,
    data: _Data,
    limit: _Limit = None,
    window: _Window = 256,
    context: _Context = 256,
    law: _Laws = None,
    prompts: _Prompts = 4,
    prompt_chars: _PromptChars = 64,
    max_new_chars: _MaxNewChars = 128,
    drafts: _Drafts = "none,heads,lookup,auto",
    draft_heads: _DraftHeads = None,
    repeats: _Repeats = 3,
    threads: _Threads = None,
    out: _Out = None,
    field: Field = "text",
    split_blank_lines: SplitBlankLines = False,
    skip_bad_lines: SkipBadLines = False,
    device: Device = "cpu",
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Models of bytes and of tokens on the same text.

    What they predict, and what that costs. Documents are cut into windows of characters. Every model reads the same
    characters before a window, and every character is scored once. Speeds: the beginnings of the first documents are
    continued greedily, by as many characters with every model, which measures no quality (greedy text of small models
    repeats itself, which look-up likes). Operations (a multiplication and an addition are two) are those of plain
    decoding for a character after half a window and its context: matrix products and attention.

    JSON fields: command, data, documents, characters, utf8_bytes, bad_lines, window, context, device, threads, prompts,
    prompt_chars, max_new_chars, repeats, rows (of each: model, source, family, attention, tokenizer, law, dtype,
    parameters, weight_bytes, model_context, nats, bits_per_char, bits_per_byte, symbols, chars_per_symbol,
    positions_per_char, cache_bytes_per_1000_chars, operations_per_char), speeds (of each: model, law, draft,
    characters, chars_per_forward, chars_per_second), out.
    """
    named = _parse_models(models)
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {out}: found a file, expected a folder or nothing")
    reader = SourceReader(data, field=field, split_blank_lines=split_blank_lines, skip=skip_bad_lines)
    text = _Text(_documents(reader, limit), window, context)
    some = _prompts(text.documents, prompts, prompt_chars)
    generation = _Generation(some, prompt_chars, max_new_chars, repeats, list(dict.fromkeys(drafts.split(","))))
    heads = _parse_draft_heads(draft_heads or [], named)
    opened = {
        name: _open(name, source, law or [_ALL], device, dtype, heads.get(name)) for name, source in named.items()
    }
    rows, speeds, used = _measure(opened, text, generation, threads)
    setting = {
        "data": [str(path) for path in data],
        **text.setting(),
        **generation.setting(),
        "bad_lines": reader.num_bad_lines,
        "device": device,
        "threads": used,
    }
    if out is not None:
        _draw(out, setting, rows, speeds)
    table = format_comparison(setting, rows, speeds, generation.drafts)
    write_result(_result(setting, rows, speeds, out), table, json)


def _documents(reader: SourceReader, limit: int | None) -> list[tuple[str, str]]:
    """Place and text of the documents that have a character.

    Raises:
        CorpusError: none has.
    """
    read = itertools.islice(reader.documents(), limit)
    found = [(f"{path}:{document.line}", document.text) for path, document in read if document.text]
    if not found:
        raise CorpusError(f"{', '.join(map(str, reader.paths))}: found no character, expected text to score")
    return found


def _parse_models(models: Sequence[str]) -> dict[str, str]:
    """Sources by name, which is the source where none is given.

    Raises:
        ConfigError: a name or folder comes twice, or one of them is empty.
    """
    named: dict[str, str] = {}
    seen: dict[str, str] = {}
    for model in models:
        check_text(model, "MODEL")
        name, equals, source = model.partition("=")
        if not equals or "/" in name or Path(model).exists():
            name = source = model
        if not name or not source:
            raise ConfigError(f"MODEL: found {model!r}, expected FOLDER or NAME=FOLDER")
        where = str(Path(source).resolve())
        if name in named or where in seen:
            raise ConfigError(f"MODEL: found {name if name in named else source!r} twice, expected each model once")
        named[name] = seen[where] = source
    return named


def _prompts(documents: Sequence[tuple[str, str]], number: int, chars: int) -> list[str]:
    """The beginnings of the first documents that are longer.

    Raises:
        CorpusError: none is, and some were asked for.
    """
    found = [text[:chars] for _, text in documents if len(text) > chars][:number]
    if number and not found:
        longest = max(len(text) for _, text in documents)
        raise CorpusError(
            f"--prompt-chars: found {chars}, and documents of at most {longest} characters, expected some longer"
            " document to continue (or --prompts 0)"
        )
    return found


def _parse_draft_heads(draft_heads: Sequence[str], models: Mapping[str, str]) -> dict[str, Path]:
    """Folders of draft heads by the name of their model.

    Raises:
        ConfigError: there is no model of a name.
    """
    found = {}
    for item in draft_heads:
        name, _, folder = item.partition("=")
        if name not in models or not folder:
            raise ConfigError(f"--draft-heads: found {item!r}, expected NAME=FOLDER, and {' or '.join(models)} as NAME")
        found[name] = Path(folder)
    return found


def _open(
    name: str, source: str, laws: Sequence[str], device: str, dtype: str | None, draft_heads: Path | None
) -> _Model:
    """A model, with those of its laws that are asked for.

    Raises:
        LawError: it has none of them.
    """
    lm = load_model(Path(source), device, dtype=dtype, draft_heads=draft_heads)
    lm.model.eval()
    for law in laws:
        if law not in (_ALL, _DEFAULT, "product", "chain", "next"):
            raise LawError(f"--law: found {law!r}, expected product, chain, next, {_DEFAULT} or {_ALL}")
    chosen = [law for law in lm.laws if _ALL in laws or law in laws or (_DEFAULT in laws and law == lm.law)]
    if not chosen:
        raise LawError(f"--law: found {', '.join(laws)}, expected one of {', '.join(lm.laws)} for the model {name}")
    return _Model(source, lm, chosen)


def _measure(
    models: Mapping[str, _Model], text: _Text, generation: _Generation, threads: int | None
) -> "tuple[list[ComparedLaw], list[GenerationSpeed], int]":
    """All figures, after a check that every model can read every window and continue every prompt; and the threads."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    from bytelm.benchmarks.generation_speed import check_generation, num_runs
    from bytelm.benchmarks.timing import num_threads
    from bytelm.evaluation.text_windows import count_symbols

    windows = text.windows()
    symbols = {name: count_symbols(name, model.lm, windows) for name, model in models.items()}
    decoded = {name: (model.lm, model.laws) for name, model in models.items() if generation.prompts}
    runs = num_runs(decoded, generation.drafts, generation.repeats)
    for name, (lm, _) in decoded.items():
        check_generation(name, lm, generation.prompts, generation.max_new_chars)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with num_threads(threads) as used, progress_bar(*columns) as bar:
        rows = _measure_laws(models, text, windows, symbols, bar)
        return rows, _measure_speeds(decoded, generation, runs, bar), used


def _measure_laws(
    models: Mapping[str, _Model],
    text: _Text,
    windows: "Sequence[TextWindow]",
    symbols: Mapping[str, int],
    bar: "Progress",
) -> list[ComparedLaw]:
    from bytelm.evaluation.text_windows import score_windows

    task = bar.add_task("windows", total=len(windows) * sum(len(model.laws) for model in models.values()))
    rows = []
    for name, model in models.items():
        for law in model.laws:
            score = score_windows(model.lm, windows, law, lambda done: bar.advance(task, done))
            rows.append(_row(name, model, score, law, symbols[name], text.context + text.window / 2))
    return rows


def _measure_speeds(
    models: "Mapping[str, tuple[LanguageModel, list[Law]]]", generation: _Generation, runs: int, bar: "Progress"
) -> "list[GenerationSpeed]":
    from bytelm.benchmarks.generation_speed import measure_generation

    if not models:
        return []
    task = bar.add_task("ways of decoding", total=runs)
    return measure_generation(
        models,
        generation.prompts,
        drafts=generation.drafts,
        max_new_chars=generation.max_new_chars,
        repeats=generation.repeats,
        on_progress=lambda: bar.advance(task),
    )


def _row(name: str, model: _Model, score: "Score", law: "Law", symbols: int, chars_before: float) -> ComparedLaw:
    """The figures of one law that are no speeds."""
    from bytelm.benchmarks.operations import cache_bytes, model_bytes, operations_per_symbol, positions_per_symbol

    lm, config, weight = model.lm, model.lm.config, next(model.lm.model.parameters())
    per_char = symbols / score.num_chars
    return ComparedLaw(
        model=name,
        source=model.source,
        family=lm.family,
        attention=lm.attention,
        tokenizer=lm.tokenizer.name,
        law=law,
        dtype=str(weight.dtype).removeprefix("torch."),
        parameters=config.num_parameters(),
        weight_bytes=model_bytes(lm.model),
        model_context=config.context,
        nats=score.nats,
        bits_per_char=score.bits_per_char,
        bits_per_byte=score.bits_per_byte,
        symbols=symbols,
        chars_per_symbol=1 / per_char,
        positions_per_char=positions_per_symbol(config, law) * per_char,
        cache_bytes_per_1000_chars=cache_bytes(config, law, 1000 * per_char, weight.element_size()),
        operations_per_char=operations_per_symbol(config, law, chars_before * per_char) * per_char,
    )


def _draw(out: Path, setting: dict[str, Any], rows: Sequence[ComparedLaw], speeds: "Sequence[GenerationSpeed]") -> None:
    """The picture, in a folder that is made where it is missing."""
    from bytelm.evaluation.comparison_plots import ModelPoint, plot_pareto

    out.mkdir(parents=True, exist_ok=True)
    points = [
        ModelPoint(
            row.model,
            row.law,
            row.bits_per_char,
            row.operations_per_char,
            {s.draft: s.chars_per_second for s in speeds if (s.model, s.law) == (row.model, row.law)},
        )
        for row in rows
    ]
    files = ", ".join(Path(path).name for path in setting["data"])
    plot_pareto(out / "pareto.png", points, f"{files}: {describe_setting(setting)}")


def _result(
    setting: dict[str, Any], rows: Sequence[ComparedLaw], speeds: "Sequence[GenerationSpeed]", out: Path | None
) -> dict[str, Any]:
    """The JSON, also written to the folder, where there is one."""
    from bytelm.hub.json_files import write_json

    result = {
        "command": "compare",
        **setting,
        "rows": [asdict(row) for row in rows],
        "speeds": [asdict(speed) for speed in speeds],
        "out": None if out is None else str(out),
    }
    if out is not None:
        write_json(out / "comparison.json", finite(result))
    return result

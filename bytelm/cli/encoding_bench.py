"""``bytelm encoding bench``."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bytelm.cli.arguments import Field, Json, SkipBadLines
from bytelm.cli.console import format_table, working, write_result
from bytelm.cli.sources import SourceReader
from bytelm.errors import ConfigError

if TYPE_CHECKING:
    from bytelm.benchmarks import CodingMemory, CodingSpeed

_ASCII = "The ferry leaves at 9:40 from pier 3; a ticket costs $12.50, and dogs travel free. "
_EMOJI = "🌅🚢🐟🧺🍙🌊👩‍🍳🐈‍⬛🎏⛩️🏝️🇯🇵🌸👍🏽✨"
_MEMORY_BYTES = 4_000_000

GOALS = (
    "Goals on Japanese text: dense encode >= 25 times tiktoken and >= 200 times tokenizers, dense decode >= 3 times "
    "tiktoken and\n>= 18 times tokenizers, dense >= 450 MB/s either way, ranked2 >= 700 MB/s, >= 400,000 strings of 30 "
    "characters per second,\nat most 6 times the UTF-8 size of the input at peak."
)


def bench(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH...]",
            help="Files and folders as for encoding fit. Default: the Japanese text of the package.",
            show_default=False,
        ),
    ] = None,
    gpt2_bpe: Annotated[
        Path | None,
        typer.Option("--gpt2-bpe", metavar="DIR", help="Folder with GPT-2's vocab.json and merges.txt."),
    ] = None,
    megabytes: Annotated[
        float, typer.Option("--megabytes", metavar="MB", help="UTF-8 size of the text; it is repeated where shorter.")
    ] = 16.0,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Runs of each, in turn.")] = 5,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="Time to share; the slow get less of the text.")
    ] = 60.0,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw the speeds.")] = None,
    field: Field = "text",
    skip_bad_lines: SkipBadLines = False,
    json: Json = False,
) -> None:
    """Speed and memory of every encoding against Python's codec and tokenizers, on one thread and the same text.

    Speeds are medians in 10^6 bytes of UTF-8 per second. The rivals (tiktoken, tokenizers, ByT5Tokenizer of
    transformers, a sentencepiece model trained on the beginning of the text) are skipped where not installed.

    JSON fields: command, kernel, text, utf8_bytes, distinct_utf8_bytes, characters, repeats, coders (of each: name,
    kind, utf8_bytes, encode_mb_per_second, decode_mb_per_second, encode_ratios, decode_ratios, symbols_per_character,
    strings_per_second, exact), memory (of each: name, text, utf8_bytes, encode, decode), skipped (of each: name,
    reason), goals, png.
    """
    for name, value in (("--megabytes", megabytes), ("--seconds", seconds)):
        if not value > 0:
            raise ConfigError(f"{name}: found {value}, expected more than 0")
    if png is not None and not png.parent.is_dir():
        raise ConfigError(f"--png: {png}: found no folder {str(png.parent)!r}, expected one to write into")
    source = ", ".join(map(str, paths)) if paths else "Japanese text of the package"
    with working("measuring"):
        documents = _documents(paths or [], int(megabytes * 1e6), field, skip_bad_lines)
        result = _measure(documents, int(megabytes * 1e6), gpt2_bpe, repeats, seconds)
    if png is not None:
        from bytelm.evaluation.encoding_plots import plot_coding_speed

        rows = [(c.name, c.kind, c.encode_mb_per_second, c.decode_mb_per_second) for c in result["coders"]]
        named = ", ".join(PurePath(path).name for path in paths) if paths else source
        plot_coding_speed(png, rows, f"{named}, {result['utf8_bytes'] / 1e6:.3g} MB; kernel: {result['kernel']}")
    text = _report(source, repeats, result)
    result = {
        "command": "encoding bench",
        "text": source,
        "repeats": repeats,
        **{key: [asdict(row) for row in value] if isinstance(value, list) else value for key, value in result.items()},
        "goals": GOALS.replace("\n", " "),
        "png": None if png is None else str(png),
    }
    write_result(result, text, json)


def _documents(paths: Sequence[str], utf8_bytes: int, field: str, skip_bad_lines: bool) -> str:
    """Documents, each with a line end, until they have the size; those of the package by default."""
    if not paths:
        from bytelm.corpus import default_texts

        return "\n".join([*default_texts(), ""])
    texts: list[str] = []
    missing = utf8_bytes
    reader = SourceReader(paths, field=field, split_blank_lines=False, skip=skip_bad_lines)
    for _, document in reader.documents():
        texts.append(document.text + "\n")
        missing -= len(texts[-1].encode("utf-8"))
        if missing <= 0:
            break
    return "".join(texts)


def _measure(documents: str, utf8_bytes: int, gpt2_bpe: Path | None, repeats: int, seconds: float) -> dict[str, Any]:
    from bytelm import encoding
    from bytelm.benchmarks import (
        encoding_coder,
        measure_coding,
        measure_memory,
        python_codec,
        repeat_text,
        rival_coders,
    )

    text = repeat_text(documents, utf8_bytes)
    ours = [encoding_coder(encoding.get_encoding(name)) for name in encoding.list_encodings()]
    rivals, skipped = rival_coders(text, gpt2_bpe)
    size = min(utf8_bytes, _MEMORY_BYTES)
    kinds = {"text": text, "ASCII": _ASCII, "emoji": _EMOJI}
    return {
        "kernel": getattr(encoding, "kernel_name", lambda: "numpy")(),
        "utf8_bytes": len(text.encode("utf-8")),
        "distinct_utf8_bytes": min(len(documents.encode("utf-8")), len(text.encode("utf-8"))),
        "characters": len(text),
        "coders": measure_coding([python_codec(), *ours, *rivals], text, repeats=repeats, seconds=seconds),
        "memory": measure_memory(ours, {kind: repeat_text(sample, size) for kind, sample in kinds.items()}),
        "skipped": skipped,
    }


def _report(source: str, repeats: int, result: dict[str, Any]) -> str:
    size, distinct = result["utf8_bytes"] / 1e6, result["distinct_utf8_bytes"] / 1e6
    lines = [
        f"{source}: {size:.3g} MB of UTF-8 ({distinct:.3g} MB, repeated), {result['characters']:,} characters; "
        f"median of {repeats} runs; one thread; kernel: {result['kernel']}",
        "",
        _speed_table(result["coders"]),
        "",
        "Peak memory of a call, its result included, over the UTF-8 size of the input (allocations of Python and "
        "numpy, and the\nstrings and arrays of the native core):",
        "",
        _memory_table(result["memory"]),
    ]
    if result["skipped"]:
        lines += ["", *(f"not measured: {entry.name}: {entry.reason}" for entry in result["skipped"])]
    return "\n".join([*lines, "", GOALS])


def _speed_table(coders: "Sequence[CodingSpeed]") -> str:
    from bytelm.benchmarks.encoding import REFERENCES, SHORT_CHARACTERS

    header = ["", "on MB", "encode MB/s", "decode MB/s"]
    for name in REFERENCES:
        header += [f"enc/{name}", f"dec/{name}"]
    header += ["symbols/char", f"{SHORT_CHARACTERS}-char strings/s", "exact"]
    rows = []
    for coder in coders:
        row = [coder.name, _figure(coder.utf8_bytes / 1e6)]
        row += [_figure(coder.encode_mb_per_second), _figure(coder.decode_mb_per_second)]
        for name in REFERENCES:
            row += [_figure(coder.encode_ratios.get(name)), _figure(coder.decode_ratios.get(name))]
        row += [f"{coder.symbols_per_character:.3f}", f"{coder.strings_per_second:,.0f}"]
        rows.append([*row, "yes" if coder.exact else "NO"])
    return format_table(header, rows, "l" + "r" * (len(header) - 2) + "l")


def _memory_table(memory: "Sequence[CodingMemory]") -> str:
    kinds = list(dict.fromkeys(entry.text for entry in memory))
    found = {(entry.name, entry.text): entry for entry in memory}
    header = ["", *(f"{kind} {way}" for kind in kinds for way in ("encode", "decode"))]
    rows = []
    for name in dict.fromkeys(entry.name for entry in memory):
        entries = [found[name, kind] for kind in kinds]
        rows.append([name, *(f"{value:.2f}" for entry in entries for value in (entry.encode, entry.decode))])
    return format_table(header, rows, "l" + "r" * (len(header) - 1))


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

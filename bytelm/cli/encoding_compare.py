"""``bytelm encoding compare``."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from bytelm.cli.arguments import Field, Json, SkipBadLines, resolve_encoding
from bytelm.cli.console import count_progress, format_table, working, write_result
from bytelm.cli.sources import BadLineCounter
from bytelm.corpus import GroupSource, iter_groups
from bytelm.corpus.readers import OnBadLine, refuse_bad_line
from bytelm.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    from bytelm.evaluation.encoding_comparison import CodeComparison


Corpora = Annotated[
    list[str],
    typer.Argument(metavar="CORPUS...", help="[NAME=]PATH[@train|@test]: as for encoding fit.", show_default=False),
]
Group = Annotated[
    str | None, typer.Option("--group", metavar="FIELD", help="JSON field that names a document's group.")
]
Encodings = Annotated[
    str | None,
    typer.Option(
        "--encodings",
        metavar="A,B,…",
        help="Encodings, tables (.json), cp932, gb18030. Default: these two and those of the package.",
        show_default=False,
    ),
]
Patches = Annotated[int, typer.Option("--patches", metavar="N", min=1, help="Drawn for the total correlation.")]


def compare(
    corpora: Corpora,
    group: Group = None,
    encodings: Encodings = None,
    patch: Annotated[int, typer.Option("--patch", metavar="P", min=1, max=16, help="Bytes per patch.")] = 4,
    patches: Patches = 200,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the draw.")] = 0,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw the comparison.")] = None,
    field: Field = "text",
    skip_bad_lines: SkipBadLines = False,
    json: Json = False,
) -> None:
    """Bytes per character, patches, and what independent heads pay, for groups of texts (languages, genres).

    Total correlation: how many bits more the bytes of a patch cost when each is predicted without the others, given
    everything before the patch; exact under a character bigram that is fitted to every second document and applied to
    patches of the others (400,000 characters of a group at most). It ranks codes; a better model than a bigram
    pays less with all of them.

    JSON fields: command, patch, patches, seed, rows (of each: group, code, missing, bytes_per_character,
    characters_per_patch, aligned, correlation_per_patch, correlation_error, correlation_per_character), bad_lines, png.
    """
    from bytelm.evaluation.encoding_comparison import compare_codes

    if png is not None and not png.parent.is_dir():
        raise ConfigError(f"--png: {png}: found no folder {str(png.parent)!r}, expected one to write into")
    names = _names(encodings)
    bad_lines = BadLineCounter()
    sources = [GroupSource.parse(corpus) for corpus in corpora]
    with working("reading"):
        texts = _texts(sources, group, field, bad_lines if skip_bad_lines else refuse_bad_line)
    rows: list[CodeComparison] = []
    with count_progress("comparing codes", len(texts), "groups") as advance:
        for name, of_group in texts.items():
            rows += compare_codes(name, of_group, names, patch=patch, patches=patches, seed=seed)
            advance(1)
    if png is not None:
        _draw(png, rows, sources, patch)
    result = {
        "command": "encoding compare",
        "patch": patch,
        "patches": patches,
        "seed": seed,
        "rows": [asdict(row) for row in rows],
        "bad_lines": bad_lines.number,
        "png": None if png is None else str(png),
    }
    write_result(result, _report(rows, list(texts), names), json)


def _names(encodings: str | None) -> list[str]:
    from bytelm.evaluation.code_words import CODECS
    from bytelm.evaluation.encoding_comparison import DEFAULT_CODES

    wanted = encodings.split(",") if encodings else DEFAULT_CODES
    return [name if name in CODECS else resolve_encoding(name).name for name in wanted]


def _texts(
    sources: Sequence[GroupSource], group: str | None, field: str, on_bad_line: OnBadLine
) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for name, document in iter_groups(sources, by=group, field=field, on_bad_line=on_bad_line):
        if document.text:
            texts.setdefault(name, []).append(document.text)
    if not texts:
        files = ", ".join(str(source.path) for source in sources)
        raise CorpusError(f"{files}: found no character, expected some text")
    return texts


def _draw(png: Path, rows: "list[CodeComparison]", sources: Sequence[GroupSource], patch: int) -> None:
    from bytelm.evaluation.encoding_plots import plot_comparison

    files = ", ".join(dict.fromkeys(PurePath(source.path).name for source in sources))
    plot_comparison(png, rows, f"{files}; patches of {patch} bytes; empty: lacks over 1 % of the characters")


_TABLES = (
    ("bytes per character (* leaves out characters that it has no word for)", "bytes_per_character", "{:.3f}"),
    ("characters per patch", "characters_per_patch", "{:.2f}"),
    ("share of patches that begin with a character", "aligned", "{:.2f}"),
    ("total correlation, bits per patch", "correlation_per_patch", "{:.2f}"),
    ("total correlation, bits per character", "correlation_per_character", "{:.2f}"),
)


def _report(rows: "list[CodeComparison]", groups: list[str], names: list[str]) -> str:
    """A table for each figure: groups down, codes across."""
    found = {(row.group, row.code): row for row in rows}
    parts = []
    for title, field, form in _TABLES:
        lines = []
        for group in groups:
            cells = []
            for name in names:
                row = found[group, name]
                value = getattr(row, field)
                mark = "*" if field == "bytes_per_character" and row.missing > 0 else ""
                cells.append("–" if math.isnan(value) else form.format(value) + mark)
            lines.append((group, *cells))
        parts.append(f"{title}\n" + format_table(("", *names), lines, "l" + "r" * len(names)))
    missing = [f"{row.code} on {row.group}: {row.missing:.3%}" for row in rows if row.missing > 0]
    if missing:
        parts.append("characters without a word: " + "; ".join(missing))
    return "\n\n".join(parts)

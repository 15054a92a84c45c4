"""``bytelm encoding list | fit``; ``show`` and ``bench`` join them here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bytelm.cli import encoding_bench, encoding_show
from bytelm.cli.arguments import (
    Field,
    Json,
    SkipBadLines,
    Sources,
    SplitBlankLines,
    check_text,
)
from bytelm.cli.console import format_table, progress_bar, write_result
from bytelm.cli.sources import SourceReader
from bytelm.corpus.readers import Source
from bytelm.encoding import Encoding, count_characters, fit_dense, get_encoding, list_encodings, write_table
from bytelm.errors import CorpusError, EncodingError

encoding = typer.Typer(name="encoding", help="Maps from text to bytes.")
encoding.command()(encoding_show.show)
encoding.command()(encoding_bench.bench)

_SAMPLE = "朝の市場で、魚と野菜とおいしいパンを買った。代金は3,200円、袋は my bag に入れた。"


@encoding.command("list")
def list_command(
    sample: Annotated[str, typer.Option("--sample", metavar="TEXT", help="Text to measure on.")] = _SAMPLE,
    json: Json = False,
) -> None:
    """The encodings by name, with what they make of a sample.

    JSON fields: command, sample, encodings (of each: name, digest, unit, max_word, controls, bytes_per_character).
    """
    check_text(sample, "--sample")
    if not sample:
        raise EncodingError("--sample: found an empty text, expected at least one character")
    found = [_summary(get_encoding(name), sample) for name in list_encodings()]
    header = ("name", "digest", "longest word", "bytes/char", "controls")
    rows = [
        (
            entry["name"],
            entry["digest"][:12],
            str(entry["max_word"]),
            f"{entry['bytes_per_character']:.3f}",
            " ".join(f"{name}={word}" for name, word in entry["controls"].items()),
        )
        for entry in found
    ]
    text = format_table(header, rows, "llrrl") + f"\nbytes/char of the sample: {sample}"
    write_result({"command": "encoding list", "sample": sample, "encodings": found}, text, json)


def _summary(encoding: Encoding, sample: str) -> dict[str, Any]:
    return {
        "name": encoding.name,
        "digest": encoding.digest,
        "unit": encoding.unit,
        "max_word": encoding.max_word,
        "controls": {name: word.hex() for name, word in encoding.controls.items()},
        "bytes_per_character": len(encoding.encode(sample)) / len(sample),
    }


@encoding.command()
def fit(
    paths: Sources,
    name: Annotated[str, typer.Option("--name", help="Name of the new encoding.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.json", help="Table to write.", show_default=False)],
    min_count: Annotated[
        int, typer.Option("--min-count", metavar="N", help="Characters seen less often are ranked by rule.")
    ] = 2,
    field: Field = "text",
    split_blank_lines: SplitBlankLines = False,
    skip_bad_lines: SkipBadLines = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.json where it exists.")] = False,
    json: Json = False,
) -> None:
    """Fit an (s,c)-dense encoding to text: the code that needs the fewest bytes for it.

    The table is then used by its path: --encoding FILE.json, or encoding: FILE.json in the model section of a
    training configuration.

    JSON fields: command, out, name, digest, s, c, ranked, documents, characters, bytes_per_character, bad_lines.
    """
    if out.suffix != ".json":
        raise EncodingError(f"{out}: found the ending {out.suffix!r}, expected .json")
    if out.exists() and not overwrite:
        raise EncodingError(f"{out}: found a file, expected none (or --overwrite)")
    reader = SourceReader(paths, field=field, split_blank_lines=split_blank_lines, skip=skip_bad_lines)
    texts = _Texts(reader.sources())
    counts = count_characters(texts)
    if not texts.documents:
        raise CorpusError(f"{', '.join(map(str, paths))}: found no document, expected at least one")
    fitted = fit_dense(counts, name, min_count=min_count)
    write_table(fitted, out)
    result = {
        "command": "encoding fit",
        "out": str(out),
        "name": fitted.name,
        "digest": fitted.digest,
        "s": fitted.s,
        "c": fitted.c,
        "ranked": len(fitted.ranked),
        "documents": texts.documents,
        "characters": int(np.sum(counts)),
        "bytes_per_character": fitted.bytes_per_character(counts),
        "bad_lines": reader.num_bad_lines,
    }
    text = (
        f"{out}: {fitted.name}, digest {fitted.digest[:12]}: (s, c) = ({fitted.s}, {fitted.c}), "
        f"{len(fitted.ranked)} ranked characters, {result['bytes_per_character']:.4f} bytes/char on the "
        f"{result['characters']} characters of {texts.documents} documents"
    )
    write_result(result, text, json)


class _Texts:
    """The text of all sources in pieces, with a progress bar; ``documents`` counts those that ended."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources
        self.documents = 0

    def __iter__(self) -> Iterator[str]:
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with progress_bar(*columns) as progress:
            task = progress.add_task("counting characters", total=sum(source.num_bytes for source in self._sources))
            before = 0
            for source in self._sources:
                for piece in source:
                    self.documents += piece.ends
                    progress.update(task, completed=before + source.position)
                    yield piece.text
                before += source.num_bytes

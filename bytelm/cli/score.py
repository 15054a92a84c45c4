"""``bytelm score``."""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bytelm.cli import completions
from bytelm.cli.arguments import (
    Device,
    Dtype,
    Field,
    FourBit,
    Int8,
    Json,
    Model,
    Revision,
    SkipBadLines,
    Sources,
    SplitBlankLines,
    load_model,
)
from bytelm.cli.console import format_table, progress_bar, write_result
from bytelm.cli.sources import SourceReader
from bytelm.corpus import Document, SourceFile
from bytelm.errors import CorpusError, EncodingError, LawError

if TYPE_CHECKING:
    from bytelm.hub import LanguageModel

_CHUNK_CHARACTERS, _CHUNK_DOCUMENTS = 1 << 16, 256
_ALL_LAWS = "all"


def score(
    model: Model,
    paths: Sources,
    law: Annotated[
        list[str] | None,
        typer.Option(
            "--law",
            metavar="NAME",
            help="product, chain, next or all; may be repeated. Default: the model's.",
            autocompletion=completions.laws_or_all,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Score the first N documents.")
    ] = None,
    field: Field = "text",
    split_blank_lines: SplitBlankLines = False,
    skip_bad_lines: SkipBadLines = False,
    dtype: Dtype = None,
    four_bit: FourBit = "dequantise",
    int8: Int8 = False,
    revision: Revision = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Likelihood of documents under a model's laws.

    Each document is scored from BOS, every symbol once, by what is before it.

    JSON fields: command, model, family, encoding, attention, documents, characters, utf8_bytes, bad_lines, laws (of
    each: law, nats, bits_per_char, bits_per_byte, seconds).
    """
    reader = SourceReader(paths, field=field, split_blank_lines=split_blank_lines, skip=skip_bad_lines)
    lm = load_model(model, device, dtype=dtype, four_bit=four_bit, revision=revision, int8=int8)
    totals = _score_all(lm, _choose_laws(lm, law or []), reader, limit)
    first = totals[0]
    if not first.characters:
        found = f"{first.documents} documents without a character" if first.documents else "no document"
        raise CorpusError(f"{', '.join(map(str, paths))}: found {found}, expected text to score")
    result = {
        "command": "score",
        "model": str(model),
        "family": lm.family,
        "encoding": lm.tokenizer.name,
        "attention": "causal",
        "documents": first.documents,
        "characters": first.characters,
        "utf8_bytes": first.utf8_bytes,
        "bad_lines": reader.num_bad_lines,
        "laws": [total.to_dict() for total in totals],
    }
    header = ("law", "documents", "characters", "UTF-8 bytes", "nats", "bits/char", "bits/UTF-8 byte", "seconds")
    write_result(result, format_table(header, [total.row() for total in totals], "lrrrrrrr"), json)


@dataclass
class _Total:
    """What one law gave so far."""

    law: str
    documents: int = 0
    characters: int = 0
    utf8_bytes: int = 0
    nats: float = 0.0
    seconds: float = 0.0

    @property
    def bits_per_char(self) -> float:
        return self.nats / math.log(2) / self.characters

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.utf8_bytes

    def to_dict(self) -> dict[str, Any]:
        return {
            "law": self.law,
            "nats": self.nats,
            "bits_per_char": self.bits_per_char,
            "bits_per_byte": self.bits_per_byte,
            "seconds": self.seconds,
        }

    def row(self) -> tuple[str, ...]:
        counts = (str(self.documents), str(self.characters), str(self.utf8_bytes))
        return (
            self.law,
            *counts,
            f"{self.nats:.1f}",
            f"{self.bits_per_char:.4f}",
            f"{self.bits_per_byte:.4f}",
            f"{self.seconds:.1f}",
        )


def _choose_laws(lm: "LanguageModel", names: Sequence[str]) -> list[str]:
    """The laws of these names, each once; all of the model's for ``all``."""
    from bytelm.model.laws import check_law

    if _ALL_LAWS in names:
        return list(lm.laws)
    try:
        return list(dict.fromkeys(check_law(lm.config, name) for name in names or [lm.law]))
    except LawError as error:
        raise LawError(f"--law: {error}") from None


def _score_all(lm: "LanguageModel", laws: Sequence[str], reader: SourceReader, limit: int | None) -> list[_Total]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    totals = [_Total(law) for law in laws]
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("documents, {task.fields[characters]} characters"),
        TimeElapsedColumn(),
    )
    with progress_bar(*columns) as progress:
        task = progress.add_task("scoring", total=limit, characters=0)
        for chunk in _chunks(itertools.islice(reader.documents(), limit)):
            for total in totals:
                _add(total, lm, chunk)
            progress.update(task, completed=totals[0].documents, characters=totals[0].characters)
    return totals


def _add(total: _Total, lm: "LanguageModel", chunk: list[tuple[SourceFile, Document]]) -> None:
    began = time.perf_counter()
    try:
        scored = lm.score([document.text for _, document in chunk], law=total.law).total
    except EncodingError as error:
        raise _locate(lm, chunk, error) from None
    total.seconds += time.perf_counter() - began
    total.documents += len(chunk)
    total.characters += scored.num_chars
    total.utf8_bytes += scored.num_utf8_bytes
    total.nats += scored.nats


def _locate(lm: "LanguageModel", chunk: list[tuple[SourceFile, Document]], error: EncodingError) -> EncodingError:
    """The error with the file and line of the document that caused it."""
    for path, document in chunk:
        try:
            lm.tokenizer.encode(document.text)
        except EncodingError as found:
            return EncodingError(f"{path}:{document.line}: {found}")
    return error


def _chunks(documents: Iterator[tuple[SourceFile, Document]]) -> Iterator[list[tuple[SourceFile, Document]]]:
    """Documents a few at a time, so that memory does not grow with their number."""
    chunk: list[tuple[SourceFile, Document]] = []
    size = 0
    for path, document in documents:
        chunk.append((path, document))
        size += len(document.text)
        if size >= _CHUNK_CHARACTERS or len(chunk) >= _CHUNK_DOCUMENTS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk

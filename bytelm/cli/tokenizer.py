"""``bytelm tokenizer train``."""

import json as json_format
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.arguments import Field, Json, SkipBadLines, SplitBlankLines
from bytelm.cli.console import count_progress, write_result
from bytelm.cli.sources import SourceReader
from bytelm.corpus import Corpus, iter_texts
from bytelm.corpus.manifest import MANIFEST_FILE
from bytelm.errors import CheckpointError, CorpusError
from bytelm.tokenizer import BPETokenizer, train_bpe, vocabulary_to_dict

tokenizer = typer.Typer(name="tokenizer", help="BPE tokenizers, for models of tokens.")

_FILE = "tokenizer.json"


@tokenizer.command()
def train(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Corpora, or text as for bytelm corpus build.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for tokenizer.json.", show_default=False)],
    vocab_size: Annotated[int, typer.Option("--vocab-size", metavar="N", help="Tokens, at most.")] = 8192,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the tokenizer that DIR holds.")] = False,
    field: Field = "text",
    split_blank_lines: SplitBlankLines = False,
    skip_bad_lines: SkipBadLines = False,
    json: Json = False,
) -> None:
    """Learn a byte-level BPE from text, or from the text of corpora, for the twin of a model of bytes.

    JSON fields: command, folder, vocab_size, merges, documents, characters, digest.
    """
    file = out / _FILE
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out}: found a file, expected a folder or nothing")
    if file.exists() and not overwrite:
        raise CheckpointError(f"{file}: found a tokenizer, expected none (or --overwrite)")
    corpora = [path for path in paths if (path / MANIFEST_FILE).is_file()]
    others = [path for path in paths if path not in corpora]
    opened = [Corpus.open(path) for path in corpora]
    reader = (
        SourceReader(others, field=field, split_blank_lines=split_blank_lines, skip=skip_bad_lines) if others else None
    )
    counts = [0, 0]
    plain = (document.text for _, document in reader.documents()) if reader else ()
    with count_progress("learning", unit="documents") as advance:

        def counted(texts: Iterable[str]) -> Iterator[str]:
            for text in texts:
                counts[0] += 1
                counts[1] += len(text)
                advance(1)
                yield text

        vocabulary = train_bpe(counted(chain(*map(iter_texts, opened), plain)), vocab_size)
    if not counts[1]:
        raise CorpusError(f"{', '.join(map(str, paths))}: found no character, expected text to learn from")
    learned = BPETokenizer(vocabulary)
    out.mkdir(parents=True, exist_ok=True)
    text = json_format.dumps(vocabulary_to_dict(vocabulary), ensure_ascii=False, indent=1)
    file.write_text(f"{text}\n", encoding="utf-8")
    result = {
        "command": "tokenizer train",
        "folder": str(out),
        "vocab_size": learned.vocab_size,
        "merges": len(vocabulary.merges),
        "documents": counts[0],
        "characters": counts[1],
        "digest": learned.digest,
    }
    shown = f"{file}: {learned.vocab_size} tokens from {counts[0]} documents, {counts[1]} characters"
    write_result(result, shown, json)

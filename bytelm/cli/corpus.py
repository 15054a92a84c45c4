"""``bytelm corpus build | info | bench``."""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bytelm.cli.arguments import EncodingName, Field, Json, SkipBadLines, Sources, SplitBlankLines, resolve_encoding
from bytelm.cli.console import count_progress, format_table, working, write_result
from bytelm.cli.sources import default_workers, source_bar
from bytelm.corpus import (
    BuildProgress,
    Corpus,
    Manifest,
    build_corpus,
    default_texts,
    find_sources,
    iter_documents,
)
from bytelm.errors import ConfigError, CorpusError

corpus = typer.Typer(name="corpus", help="Text as shards of bytes for training.")

_SHOWN_BAD_LINES = 5

_Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the corpus.", show_default=False)]
_Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", help="Processes that encode; 0 encodes in this one. By default as many as help."
    ),
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the corpus that DIR holds.")]
_ShardBytes = Annotated[
    int, typer.Option("--shard-bytes", metavar="N", help="Size of every shard but the last of a part.")
]
_MinCharacters = Annotated[
    int | None, typer.Option("--min-characters", metavar="N", help="Leave out shorter documents.")
]
_MaxCharacters = Annotated[
    int | None, typer.Option("--max-characters", metavar="N", help="Leave out longer documents.")
]
_Deduplicate = Annotated[
    bool, typer.Option("--deduplicate", help="Leave out documents that equal an earlier one; reads all twice.")
]
_ValidShare = Annotated[
    float,
    typer.Option(
        "--valid-share",
        metavar="SHARE",
        help="Write DIR/train and DIR/valid, with this share of the documents, by a hash of each.",
    ),
]


@corpus.command()
def build(
    paths: Sources,
    out: _Out,
    encoding: EncodingName = "dense-ja",
    workers: _Workers = None,
    field: Field = "text",
    split_blank_lines: SplitBlankLines = False,
    skip_bad_lines: SkipBadLines = False,
    overwrite: _Overwrite = False,
    shard_bytes: _ShardBytes = 1 << 28,
    min_characters: _MinCharacters = None,
    max_characters: _MaxCharacters = None,
    deduplicate: _Deduplicate = False,
    valid_share: _ValidShare = 0.0,
    json: Json = False,
) -> None:
    """Encode documents into the shards and the manifest of a corpus.

    Finished parts of a build that ended early stay in DIR/unfinished. The same command goes on with it, and gives the
    same bytes as if it had never stopped, with any number of workers.

    JSON fields: command, folder, encoding, encoding_digest, documents, characters, utf8_bytes, bytes,
    bytes_per_character, shards, sources, bad_lines, too_short, too_long, duplicates, valid, kept_parts, seconds.
    """
    began, kept, table = time.perf_counter(), 0, resolve_encoding(encoding)
    with source_bar("encoding") as update:

        def follow(state: BuildProgress) -> None:
            nonlocal kept
            kept = state.kept_parts
            update(state)

        manifest = build_corpus(
            paths,
            table,
            out,
            workers=default_workers(paths, os.cpu_count() or 1) if workers is None else workers,
            field=field,
            split_blank_lines=split_blank_lines,
            skip_bad_lines=skip_bad_lines,
            overwrite=overwrite,
            shard_bytes=shard_bytes,
            min_characters=min_characters,
            max_characters=max_characters,
            deduplicate=deduplicate,
            valid_share=valid_share,
            progress=follow,
        )
    seconds, folder = time.perf_counter() - began, out / manifest.side if valid_share else out
    valid = (out / "valid", Manifest.load(out / "valid")) if valid_share else None
    result = {
        "command": "corpus build",
        **_summary(folder, manifest),
        "valid": None if valid is None else _summary(*valid),
        "kept_parts": kept,
        "seconds": seconds,
    }
    lines = [_describe(*found) for found in ((folder, manifest), valid) if found is not None]
    lines += [f"{kept} parts of an earlier build were kept and verified"] if kept else []
    write_result(result, "\n".join([*lines, f"built in {seconds:.1f} s"]), json)


@corpus.command()
def info(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the corpus.", show_default=False)],
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read the shards, compare their SHA-256.")
    ] = True,
    json: Json = False,
) -> None:
    """Check a corpus and say what it holds.

    JSON fields: command, folder, encoding, encoding_digest, documents, characters, utf8_bytes, bytes,
    bytes_per_character, shards, sources, bad_lines, too_short, too_long, duplicates, verified.
    """
    opened = Corpus.open(folder, verify=False)
    manifest = opened.manifest
    if verify:
        with count_progress("comparing SHA-256", manifest.bytes, "bytes") as advance:
            opened.verify(advance)
    state = "every shard agrees with its SHA-256" if verify else "sizes agree, contents were not read"
    result = {"command": "corpus info", **_summary(folder, manifest), "verified": verify}
    write_result(result, f"{_describe(folder, manifest)}\n{state}", json)


def _summary(folder: Path, manifest: Manifest) -> dict[str, Any]:
    plain = manifest.to_dict()
    fields = ("encoding", "encoding_digest", "documents", "characters", "utf8_bytes", "bytes", "shards", "sources")
    return {
        "folder": str(folder),
        **{name: plain[name] for name in fields},
        "bytes_per_character": manifest.bytes_per_character,
        "bad_lines": manifest.num_bad_lines,
        **manifest.left_out(),
    }


def _describe(folder: Path, manifest: Manifest) -> str:
    lines = [
        f"{folder}: {manifest.documents} documents, {manifest.characters} characters, "
        f"{manifest.utf8_bytes} UTF-8 bytes",
        f"{manifest.encoding} (digest {manifest.encoding_digest[:12]}): {manifest.bytes} bytes in "
        f"{len(manifest.shards)} shards, {manifest.bytes_per_character:.4f} bytes/char with BOS and EOS",
    ]
    if any(manifest.left_out().values()):
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in manifest.left_out().items())
        lines.append(f"documents left out: {counts}")
    if manifest.num_bad_lines:
        lines.append(f"{manifest.num_bad_lines} bad lines were skipped; the manifest lists them")
        lines += [f"  {bad.file}:{bad.line}: {bad.reason}" for bad in manifest.bad_lines[:_SHOWN_BAD_LINES]]
    return "\n".join(lines)


@corpus.command()
def bench(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH...]",
            help="Text, as for corpus build. Default: the Japanese text of the package.",
            show_default=False,
        ),
    ] = None,
    encoding: EncodingName = "dense-ja",
    megabytes: Annotated[
        float, typer.Option("--megabytes", metavar="MB", help="UTF-8 size of the text; it is repeated where shorter.")
    ] = 32.0,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Measure a build by so many processes, too.")
    ] = 1,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Runs of each, in turn.")] = 3,
    field: Field = "text",
    json: Json = False,
) -> None:
    """Speed of corpus build in 10^6 bytes of UTF-8 per second, and per second of a core, by format and options.

    The text is written as files of each format into a temporary folder; the rate of hashing alone (SHA-256, which every
    shard needs) is measured in the same run.

    JSON fields: command, encoding, utf8_bytes, documents, repeats, sha256_mb_per_second, rows (of each: name, workers,
    mb_per_second, mb_per_cpu_second, stored_bytes).
    """
    from dataclasses import asdict

    from bytelm.benchmarks.corpus import measure_builds

    if not megabytes > 0:
        raise ConfigError(f"--megabytes: found {megabytes}, expected more than 0")
    sample, table = _sample(paths, int(megabytes * 1e6), field), resolve_encoding(encoding)
    with working("measuring builds"):
        found = measure_builds(sample, table, workers=workers, repeats=repeats)
    rows = [
        (row.name, str(row.workers), f"{row.mb_per_second:.1f}", f"{row.mb_per_cpu_second:.1f}") for row in found.rows
    ]
    text = [
        f"{found.utf8_bytes / 1e6:.1f} MB of UTF-8 in {found.documents} documents, {encoding}; "
        f"median of {repeats} runs",
        format_table(("", "workers", "MB/s", "MB/s of a core"), rows, "lrrr"),
        f"SHA-256 alone: {found.sha256_mb_per_second:.0f} MB/s of stored bytes",
    ]
    result = {"command": "corpus bench", "encoding": encoding, "repeats": repeats, **asdict(found)}
    write_result(result, "\n".join(text), json)


def _texts(paths: list[str], field: str) -> Iterator[str]:
    for source in find_sources(paths):
        yield from (document.text for document in iter_documents(source, field=field))


def _sample(paths: list[str] | None, utf8_bytes: int, field: str) -> list[str]:
    """Documents of that size together, from the beginning again where there are not as many."""
    texts: list[str] = []
    size = 0
    for text in _texts(paths, field) if paths else default_texts():
        texts.append(text)
        size += len(text.encode("utf-8"))
        if size >= utf8_bytes:
            break
    if not size:
        raise CorpusError("found no character, expected text to measure on")
    return list(itertools.islice(itertools.cycle(texts), -(-utf8_bytes * len(texts) // size)))

"""``bytelm corpus build | info``."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bytelm.cli.arguments import EncodingName, Field, Json, SkipBadLines, Sources, SplitBlankLines, resolve_encoding
from bytelm.cli.console import write_result
from bytelm.cli.sources import default_workers, source_bar
from bytelm.corpus import Corpus, Manifest, build_corpus

corpus = typer.Typer(name="corpus", help="Text as shards of bytes for training.")

_SHOWN_BAD_LINES = 5


@corpus.command()
def build(
    paths: Sources,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the corpus.", show_default=False)],
    encoding: EncodingName = "dense-ja",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", help="Processes that encode; 0 encodes in this one. By default as many as help."
        ),
    ] = None,
    field: Field = "text",
    split_blank_lines: SplitBlankLines = False,
    skip_bad_lines: SkipBadLines = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the corpus that DIR holds.")] = False,
    shard_bytes: Annotated[
        int, typer.Option("--shard-bytes", metavar="N", help="Size of every shard but the last.")
    ] = 1 << 28,
    json: Json = False,
) -> None:
    """Encode documents into the shards and the manifest of a corpus.

    JSON fields: command, folder, encoding, encoding_digest, documents, characters, utf8_bytes, bytes,
    bytes_per_character, shards, sources, bad_lines, seconds.
    """
    began = time.perf_counter()
    table = resolve_encoding(encoding)
    with source_bar("encoding") as update:
        manifest = build_corpus(
            paths,
            table,
            out,
            workers=default_workers(paths) if workers is None else workers,
            field=field,
            split_blank_lines=split_blank_lines,
            skip_bad_lines=skip_bad_lines,
            overwrite=overwrite,
            shard_bytes=shard_bytes,
            progress=update,
        )
    seconds = time.perf_counter() - began
    result = {"command": "corpus build", **_summary(out, manifest), "seconds": seconds}
    write_result(result, f"{_describe(out, manifest)}\nbuilt in {seconds:.1f} s", json)


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
    bytes_per_character, shards, sources, bad_lines, verified.
    """
    manifest = Corpus.open(folder, verify=verify).manifest
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
    }


def _describe(folder: Path, manifest: Manifest) -> str:
    lines = [
        f"{folder}: {manifest.documents} documents, {manifest.characters} characters, "
        f"{manifest.utf8_bytes} UTF-8 bytes",
        f"{manifest.encoding} (digest {manifest.encoding_digest[:12]}): {manifest.bytes} bytes in "
        f"{len(manifest.shards)} shards, {manifest.bytes_per_character:.4f} bytes/char with BOS and EOS",
    ]
    if manifest.num_bad_lines:
        lines.append(f"{manifest.num_bad_lines} bad lines were skipped; the manifest lists them")
        lines += [f"  {bad.file}:{bad.line}: {bad.reason}" for bad in manifest.bad_lines[:_SHOWN_BAD_LINES]]
    return "\n".join(lines)

"""What a corpus folder holds: the file ``manifest.json``, written last, so that a folder with it is complete."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from bytelm.config import Config
from bytelm.corpus.options import BuildOptions, Side
from bytelm.errors import ConfigError, CorpusError
from bytelm.places import is_plain_name

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"


def save_json(path: Path, tree: Config) -> None:
    """Write a tree as a JSON file, whole or not at all, and wait until it is on disk.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(tree.to_dict(), file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@final
@dataclass(frozen=True, kw_only=True)
class BadLine(Config):
    """A line of a source file (the row of a Parquet file, counted from 1) that was skipped, and why."""

    file: str
    line: int
    reason: str


@final
@dataclass(frozen=True, kw_only=True)
class Shard(Config):
    """One file of the stored stream: its name in the folder, its size and the SHA-256 of its bytes in hexadecimal."""

    file: str
    bytes: int
    sha256: str

    def validate(self) -> None:
        """Check the size, the digest and that the file lies in the folder of the manifest."""
        self.require(is_plain_name(self.file), "file", "a file name without a folder")
        self.require(self.bytes > 0, "bytes", "a size above 0")
        self.require(len(self.sha256) == 64, "sha256", "64 hexadecimal digits")


@final
@dataclass(frozen=True, kw_only=True)
class SourceSummary(Config):
    """One input file: its path as it was given, the documents taken from it and the number of bad lines skipped.

    ``too_short`` and ``too_long`` documents were left out by their length, ``duplicates`` because an equal document
    had come before. Where a build writes two corpora, a document that was left out counts in that to which it would
    have gone, and bad lines in the one for training.
    """

    path: str
    documents: int
    bad_lines: int
    too_short: int = 0
    too_long: int = 0
    duplicates: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class Manifest(Config):
    """Contents of a corpus.

    ``characters`` are Unicode scalar values and ``utf8_bytes`` their UTF-8 size, of the documents alone; ``bytes`` is
    the stored stream with the BOS patch and the EOS of every document. ``bad_lines`` lists the skipped lines, the
    first ones only where there are very many: :attr:`num_bad_lines` counts all. ``side`` says whether it is all that
    was built, or one of two corpora; ``options`` are None in a manifest of a time when they were not recorded.
    """

    format_version: int
    encoding: str
    encoding_digest: str
    encoding_table: Mapping[str, Any]
    documents: int
    characters: int
    utf8_bytes: int
    bytes: int
    shards: tuple[Shard, ...]
    sources: tuple[SourceSummary, ...]
    bad_lines: tuple[BadLine, ...] = ()
    side: Side = "all"
    options: BuildOptions | None = None

    def validate(self) -> None:
        """Check that the counts agree with each other."""
        self.require(self.documents > 0, "documents", "at least one document")
        self.require(self.documents == sum(s.documents for s in self.sources), "documents", "the sum over the sources")
        self.require(self.bytes == sum(s.bytes for s in self.shards), "bytes", "the sum over the shards")

    @property
    def num_bad_lines(self) -> int:
        """How many lines were skipped in all."""
        return sum(source.bad_lines for source in self.sources)

    def left_out(self) -> dict[str, int]:
        """How many documents were left out, by reason."""
        return {
            "too_short": sum(source.too_short for source in self.sources),
            "too_long": sum(source.too_long for source in self.sources),
            "duplicates": sum(source.duplicates for source in self.sources),
        }

    @property
    def bytes_per_character(self) -> float:
        """Stored bytes per character, BOS patches and EOS included; infinite for documents without a character."""
        return self.bytes / self.characters if self.characters else float("inf")

    def save(self, folder: Path) -> None:
        """Write ``manifest.json``, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        save_json(folder / MANIFEST_FILE, self)

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read ``manifest.json``.

        Raises:
            CorpusError: no corpus, an unfinished one, one of another format version, or a damaged manifest.
        """
        path = folder / MANIFEST_FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CorpusError(f"{path}: no such file, expected the manifest of a finished corpus") from None
        except OSError as error:
            raise CorpusError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise CorpusError(f"{path}: found no JSON ({error}), expected the manifest of a corpus") from None
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != FORMAT_VERSION:
            raise CorpusError(f"{path}: found format_version {version!r}, expected {FORMAT_VERSION}")
        table = data.get("encoding_table", {})
        if not isinstance(table, dict):
            raise CorpusError(f"{path}: encoding_table: found {table!r}, expected an object")
        try:
            return cls.from_dict(data)
        except ConfigError as error:
            raise CorpusError(f"{path}: {error}") from None

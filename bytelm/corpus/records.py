"""What the parts of an unfinished build leave on disk, and what they say while they work."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

from bytelm.config import Config
from bytelm.corpus.manifest import BadLine, Shard, SourceSummary
from bytelm.corpus.options import BuildOptions
from bytelm.corpus.shards import check_shard
from bytelm.encoding import Encoding
from bytelm.errors import ConfigError, CorpusError

_SummaryT = TypeVar("_SummaryT", "PartSummary", "DigestSummary")


@final
@dataclass(frozen=True, slots=True)
class Job:
    """What all parts of a build have in common: the folder of its unfinished files, encoding and options."""

    folder: Path
    encoding: Encoding
    options: BuildOptions


@final
@dataclass(frozen=True, kw_only=True)
class SideSummary(Config):
    """What a part gives to one of the corpora; shards are named as in the folder of the unfinished build."""

    documents: int
    characters: int
    utf8_bytes: int
    shards: tuple[Shard, ...]
    sources: tuple[SourceSummary, ...]
    bad_lines: tuple[BadLine, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class PartSummary(Config):
    """A finished part: ``part-N.json``, written when its shards are on disk."""

    sides: tuple[SideSummary, ...]

    @property
    def files(self) -> tuple[Shard, ...]:
        """Its shards, of all sides."""
        return tuple(shard for side in self.sides for shard in side.shards)


@final
@dataclass(frozen=True, kw_only=True)
class DigestSummary(Config):
    """The digests of a part's documents: ``part-N.digests.json``, written when they are on disk."""

    documents: int
    file: Shard

    @property
    def files(self) -> tuple[Shard, ...]:
        """The file of the digests."""
        return (self.file,)


@final
@dataclass(frozen=True, slots=True)
class PartProgress:
    """How far a part has come: bytes of its sources that were read, the rest as in ``BuildProgress``."""

    part: int
    source: str
    source_bytes: int
    documents: int = 0
    characters: int = 0
    bytes: int = 0
    bad_lines: int = 0


@final
@dataclass(frozen=True, slots=True)
class PartDone:
    """A part is finished. ``kept``: by an earlier build, and verified; ``altered`` says why it could not be kept."""

    part: int
    summary: PartSummary | DigestSummary
    kept: bool
    altered: str = ""


def remove_unfinished(folder: Path) -> None:
    """Remove the files of all parts that have no record."""
    for path in folder.glob("part-*"):
        part, _, rest = path.name.partition(".")
        record = f"{part}.digests.json" if rest.startswith("digests") else f"{part}.json"
        if not (folder / record).exists():
            path.unlink(missing_ok=True)


def load_record(path: Path, kind: type[_SummaryT]) -> _SummaryT | None:
    """The record of a finished part, None where there is none that can be read."""
    try:
        return kind.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ConfigError):
        return None


def load_kept(path: Path, kind: type[_SummaryT]) -> tuple[_SummaryT | None, str]:
    """The record of a part that an earlier build finished, if its files beside it are as they were written; else None,
    and what is wrong with them, if there is a record at all.
    """
    kept = load_record(path, kind)
    if kept is None:
        return None, ""
    try:
        for file in kept.files:
            check_shard(path.parent / file.file, file)
    except CorpusError as error:
        return None, str(error)
    return kept, ""


def remove_files(folder: Path, pattern: str) -> None:
    """Remove the files of a folder whose names match."""
    for path in folder.glob(pattern):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def removed_on_failure(folder: Path, pattern: str) -> Iterator[None]:
    """Remove what a part has written, before it begins and where it does not come to its end."""
    remove_files(folder, pattern)
    try:
        yield
    except BaseException:
        remove_files(folder, pattern)
        raise


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Raise what the system refuses as one line that names the file.

    Raises:
        CorpusError: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"{path}: {error.strerror or error}; finished parts stay in {path.parent}, and the same command goes on"
            " with them"
        ) from error

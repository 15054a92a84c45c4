"""From source files to a corpus: read, encode in worker processes, write shards and the manifest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from bytelm.corpus.manifest import FORMAT_VERSION, MANIFEST_FILE, BadLine, Manifest, Shard, SourceSummary
from bytelm.corpus.pool import Batch, EncodedBatch, batch_encoder
from bytelm.corpus.readers import Piece, Source, cut_piece, find_sources, refuse_bad_line
from bytelm.corpus.shards import ShardWriter, corpus_files
from bytelm.encoding import Encoding
from bytelm.errors import CorpusError

MAX_LISTED_BAD_LINES = 10_000
"""Skipped lines are all counted; the manifest lists this many of them."""

_BATCH_CHARACTERS = 1 << 18


@final
@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a build has come. ``source_bytes`` of ``total_source_bytes`` (sizes on disk) were read; ``documents``,
    ``characters`` and ``bytes`` (of the stored stream) were written.
    """

    source: str
    source_bytes: int
    total_source_bytes: int
    documents: int
    characters: int
    bytes: int
    bad_lines: int


def build_corpus(
    paths: str | Path | Sequence[str | Path],
    encoding: Encoding,
    out: str | Path,
    *,
    workers: int = 0,
    field: str = "text",
    split_blank_lines: bool = False,
    skip_bad_lines: bool = False,
    overwrite: bool = False,
    shard_bytes: int = 1 << 28,
    progress: Callable[[BuildProgress], None] | None = None,
) -> Manifest:
    """Encode documents into the shards and the manifest of a corpus.

    The stored stream is, for every document in order, the BOS patch of 4 bytes, the encoded text and EOS. A document
    of no characters is stored as BOS patch and EOS. Memory stays flat whatever the size of the input; only a single
    line of JSON or row of Parquet is held whole. The output does not depend on ``workers``.

    Args:
        paths: files and folders, see :func:`~bytelm.corpus.readers.find_sources`.
        encoding: encodes the text; its table and digest are stored in the manifest.
        out: folder of the corpus; made if need be.
        workers: processes that encode; 0 encodes in this process. They are spawned, so a script that asks for them
            needs ``if __name__ == "__main__":``.
        field: name of the JSON field or Parquet column that holds the text.
        split_blank_lines: whether blank lines separate the documents of plain text files.
        skip_bad_lines: count and list bad lines instead of raising at the first one.
        overwrite: replace a corpus that ``out`` holds; it is removed when the first byte of the new one is written.
        shard_bytes: size of every shard but the last.
        progress: called after every few hundred thousand characters.
    Raises:
        CorpusError: a source that cannot be read, a bad line, no document at all, a folder that already holds a corpus
            or that cannot be written. Finished shards stay, a partial one is removed, and there is no manifest.
    """
    out = Path(out)
    _check_arguments(out, workers, shard_bytes, overwrite)
    reading = _Reading(find_sources(paths), field, split_blank_lines, skip_bad_lines)
    counts = _Counts()
    with ShardWriter(out, shard_bytes) as writer, batch_encoder(encoding, workers) as encode:
        for encoded in encode(reading.batches()):
            writer.write(encoded.data)
            counts.add(encoded)
            if progress is not None:
                progress(reading.progress(counts, writer.num_bytes))
    if not counts.documents:
        raise CorpusError(f"{reading.description}: found no document, expected at least one")
    return _write_manifest(out, encoding, reading, counts, tuple(writer.finished))


def _write_manifest(
    out: Path, encoding: Encoding, reading: "_Reading", counts: "_Counts", shards: tuple[Shard, ...]
) -> Manifest:
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        encoding=encoding.name,
        encoding_digest=encoding.digest,
        encoding_table=encoding.to_dict(),
        documents=counts.documents,
        characters=counts.characters,
        utf8_bytes=counts.utf8_bytes,
        bytes=sum(shard.bytes for shard in shards),
        shards=shards,
        sources=tuple(reading.summaries),
        bad_lines=tuple(reading.bad_lines),
    )
    try:
        manifest.save(out)
    except OSError as error:
        raise CorpusError(f"{out / MANIFEST_FILE}: {error.strerror or error}; finished shards stay in {out}") from error
    return manifest


def _check_arguments(out: Path, workers: int, shard_bytes: int, overwrite: bool) -> None:
    if workers < 0:
        raise CorpusError(f"workers: found {workers}, expected 0 or more")
    if shard_bytes < 1:
        raise CorpusError(f"shard_bytes: found {shard_bytes}, expected 1 or more")
    if out.exists() and not out.is_dir():
        raise CorpusError(f"{out}: found a file, expected a folder")
    found = corpus_files(out)
    if found and not overwrite:
        raise CorpusError(f"{out}: found {found[0].name} of an earlier build, expected a folder without one")


@final
@dataclass(slots=True)
class _Counts:
    documents: int = 0
    characters: int = 0
    utf8_bytes: int = 0

    def add(self, encoded: EncodedBatch) -> None:
        self.documents += encoded.documents
        self.characters += encoded.characters
        self.utf8_bytes += encoded.utf8_bytes


@final
class _Reading:
    """Reads the sources one after another into batches and keeps account of them."""

    def __init__(self, paths: Sequence[Path], field: str, split_blank_lines: bool, skip_bad_lines: bool) -> None:
        on_bad_line = self._count_bad_line if skip_bad_lines else refuse_bad_line
        self._sources = [
            Source(path, field=field, split_blank_lines=split_blank_lines, on_bad_line=on_bad_line) for path in paths
        ]
        self._current = self._sources[0]
        self._total_bytes = sum(source.num_bytes for source in self._sources)
        self._bytes_before = 0
        self.summaries: list[SourceSummary] = []
        self.bad_lines: list[BadLine] = []
        self.num_bad = 0

    def _count_bad_line(self, bad: BadLine) -> None:
        self.num_bad += 1
        if len(self.bad_lines) < MAX_LISTED_BAD_LINES:
            self.bad_lines.append(bad)

    @property
    def description(self) -> str:
        """The sources and what was skipped, for a message."""
        others = f" and {len(self._sources) - 1} more files" if len(self._sources) > 1 else ""
        skipped = f" ({self.num_bad} bad lines were skipped)" if self.num_bad else ""
        return f"{self._sources[0].path}{others}{skipped}"

    def batches(self) -> Iterator[Batch]:
        """All text in order, about ``_BATCH_CHARACTERS`` characters at a time."""
        texts: list[str] = []
        marks: list[int] = []
        size, inside = 0, False
        for piece in self._pieces():
            # documents without a character count as well, or a batch of them would never be full
            if size + len(marks) >= _BATCH_CHARACTERS:
                yield Batch("".join(texts), marks, inside)
                inside = not piece.begins
                texts, marks, size = [], [], 0
            if piece.begins:
                marks.append(size)
            texts.append(piece.text)
            size += len(piece.text)
            if piece.ends:
                marks.append(size)
        if texts:
            yield Batch("".join(texts), marks, inside)

    def _pieces(self) -> Iterator[Piece]:
        bytes_before = 0
        for source in self._sources:
            self._current, self._bytes_before = source, bytes_before
            documents, bad_before = 0, self.num_bad
            for piece in source:
                documents += piece.ends
                yield from cut_piece(piece, _BATCH_CHARACTERS)
            summary = SourceSummary(path=str(source.path), documents=documents, bad_lines=self.num_bad - bad_before)
            self.summaries.append(summary)
            bytes_before += source.num_bytes

    def progress(self, counts: _Counts, num_bytes: int) -> BuildProgress:
        return BuildProgress(
            source=str(self._current.path),
            source_bytes=self._bytes_before + self._current.position,
            total_source_bytes=self._total_bytes,
            documents=counts.documents,
            characters=counts.characters,
            bytes=num_bytes,
            bad_lines=self.num_bad,
        )

"""One part of a build: its documents read, chosen, encoded and written into shards of their own."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from bytelm.corpus.batches import Batch, BatchEncoder, Batcher
from bytelm.corpus.manifest import BadLine, SourceSummary, save_json
from bytelm.corpus.plan import Part
from bytelm.corpus.readers import Piece, Source, refuse_bad_line
from bytelm.corpus.records import (
    Job,
    PartDone,
    PartProgress,
    PartSummary,
    SideSummary,
    load_kept,
    removed_on_failure,
    told,
)
from bytelm.corpus.selection import judge
from bytelm.corpus.shards import ShardWriter

MAX_LISTED_BAD_LINES = 10_000
"""Skipped lines are all counted; the manifest lists this many of them."""

_TAKEN = "taken"


def build_part(job: Job, task: tuple[Part, NDArray[np.uint8] | None]) -> Iterator[PartProgress | PartDone]:
    """Write the shards and the record of a part, unless an earlier build did.

    Args:
        job: what all parts have in common.
        task: the part, and a bit for each of its documents that says whether it repeats an earlier one, if that was
            asked for.
    """
    part, repeated = task
    record = job.folder / f"{part.name}.json"
    kept, altered = load_kept(record, PartSummary)
    if kept is not None:
        yield PartDone(part.index, kept, kept=True)
        return
    with removed_on_failure(job.folder, f"{part.name}.[!d]*"), contextlib.ExitStack() as stack:
        encode = BatchEncoder(job.encoding)
        names = [f"{part.name}.{side}." for side in job.options.sides]
        writers = [stack.enter_context(ShardWriter(job.folder, name, job.options.shard_bytes)) for name in names]
        sides = [_Side(encode, writer) for writer in writers]
        reading = _Reading(job, part, repeated)
        for index, piece in reading.pieces():
            if sides[index].add(piece):
                yield reading.progress(sides)
        for side in sides:
            side.close()
        yield reading.progress(sides)
        stack.close()
        summary = reading.summary(sides)
        with told(record):
            save_json(record, summary)
    yield PartDone(part.index, summary, kept=False, altered=altered)


@final
class _Side:
    """The documents of a part that go to one corpus."""

    def __init__(self, encode: BatchEncoder, writer: ShardWriter) -> None:
        self._encode, self._batcher = encode, Batcher()
        self.writer = writer
        self.documents = self.characters = self.utf8_bytes = 0

    def add(self, piece: Piece) -> bool:
        """Take a piece; whether something was written."""
        return self._write(self._batcher.add(piece))

    def close(self) -> None:
        """Write what is left."""
        self._write(self._batcher.rest())

    def _write(self, batches: Iterator[Batch]) -> bool:
        written = False
        for batch in batches:
            encoded = self._encode(batch)
            self.writer.write(encoded.data)
            self.documents += encoded.documents
            self.characters += encoded.characters
            self.utf8_bytes += encoded.utf8_bytes
            written = True
        return written


@final
class _Reading:
    """Reads the sources of a part one after another and keeps account of them."""

    def __init__(self, job: Job, part: Part, repeated: NDArray[np.uint8] | None) -> None:
        self._part, self._options = part, job.options
        on_bad_line = self._count_bad_line if job.options.skip_bad_lines else refuse_bad_line
        self._sources = [
            Source(
                file,
                field=job.options.field,
                split_blank_lines=job.options.split_blank_lines,
                on_bad_line=on_bad_line,
            )
            for file in part.sources
        ]
        self._repeated = repeated
        self._number = 0
        self._current, self._bytes_before = self._sources[0], 0
        self._summaries: list[list[SourceSummary]] = [[] for _ in job.options.sides]
        self._bad_lines: list[BadLine] = []
        self._num_bad = 0

    def _count_bad_line(self, bad: BadLine) -> None:
        self._num_bad += 1
        if len(self._bad_lines) < MAX_LISTED_BAD_LINES:
            self._bad_lines.append(bad)

    def pieces(self) -> Iterator[tuple[int, Piece]]:
        """The documents that are taken, piece by piece, each with its side."""
        for source in self._sources:
            self._current, bad_before = source, self._num_bad
            counts = [Counter[str]() for _ in self._summaries]
            yield from self._judged(source, counts) if self._options.judges else self._plain(source, counts)
            for index, summaries in enumerate(self._summaries):
                count = counts[index]
                summaries.append(
                    SourceSummary(
                        path=source.file.name,
                        documents=count[_TAKEN],
                        bad_lines=self._num_bad - bad_before if index == 0 else 0,
                        too_short=count["too_short"],
                        too_long=count["too_long"],
                        duplicates=count["duplicates"],
                    )
                )
            self._bytes_before += source.num_bytes

    def _plain(self, source: Source, counts: Sequence[Counter[str]]) -> Iterator[tuple[int, Piece]]:
        for piece in source:
            counts[0][_TAKEN] += piece.ends
            yield 0, piece

    def _judged(self, source: Source, counts: Sequence[Counter[str]]) -> Iterator[tuple[int, Piece]]:
        for judged in judge(source, self._options):
            side = int(judged.valid)
            repeats = self._repeated is not None and self._repeated[self._number >> 3] >> (self._number & 7) & 1
            counts[side]["duplicates" if repeats else judged.verdict] += 1
            self._number += 1
            if not repeats:
                yield from ((side, piece) for piece in judged.pieces)

    def progress(self, sides: Sequence[_Side]) -> PartProgress:
        return PartProgress(
            part=self._part.index,
            source=self._sources[-1].file.name if self._done else self._current.file.name,
            source_bytes=self._bytes_before + (0 if self._done else self._current.position),
            documents=sum(side.documents for side in sides),
            characters=sum(side.characters for side in sides),
            bytes=sum(side.writer.num_bytes for side in sides),
            bad_lines=self._num_bad,
        )

    @property
    def _done(self) -> bool:
        return len(self._summaries[0]) == len(self._sources)

    def summary(self, sides: Sequence[_Side]) -> PartSummary:
        """What the part gave to each corpus; all its bad lines stand with the first."""
        return PartSummary(
            sides=tuple(
                SideSummary(
                    documents=side.documents,
                    characters=side.characters,
                    utf8_bytes=side.utf8_bytes,
                    shards=tuple(side.writer.finished),
                    sources=tuple(summaries),
                    bad_lines=tuple(self._bad_lines) if index == 0 else (),
                )
                for index, (side, summaries) in enumerate(zip(sides, self._summaries, strict=True))
            )
        )

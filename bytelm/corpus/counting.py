"""Characters and pairs of characters counted by group, in worker processes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import final

import numpy as np
from numpy.typing import NDArray

from bytelm.corpus.files import find_sources
from bytelm.corpus.groups import GroupSource, group_labels
from bytelm.corpus.pool import ignore_interrupts, in_order, worker_pool
from bytelm.corpus.readers import OnBadLine, Piece, Source, cut_piece, refuse_bad_line
from bytelm.encoding import PairCounts, balance, balance_pairs
from bytelm.encoding.convert import NUM_CODE_POINTS, code_points_of
from bytelm.errors import CorpusError

_BATCH_CHARACTERS = 1 << 20


@final
@dataclass(frozen=True, slots=True)
class GroupCounts:
    """What one group holds: ``counts`` is int64[0x110000] by code point; ``pairs`` is None where none were counted."""

    name: str
    documents: int
    characters: int
    counts: NDArray[np.int64]
    pairs: PairCounts | None


@final
@dataclass(frozen=True, slots=True)
class CountProgress:
    """How far counting has come: ``source_bytes`` of ``total_source_bytes`` (sizes on disk) were read."""

    source_bytes: int
    total_source_bytes: int
    documents: int
    characters: int


@final
@dataclass(frozen=True, slots=True)
class _Batch:
    """Text of one group. A document begins at each of ``breaks``; a text that does not begin at 0 is that of a
    document that an earlier batch began, and ``before`` is the last character there.
    """

    group: str
    before: str
    text: str
    breaks: list[int]
    documents: int


@final
@dataclass(frozen=True, slots=True)
class _BatchCounts:
    """The counts of a batch, those of the characters that occur."""

    group: str
    documents: int
    characters: int
    points: NDArray[np.int64]
    counts: NDArray[np.int64]
    pairs: PairCounts | None


def count_groups(
    sources: Sequence[GroupSource],
    *,
    by: str | None = None,
    field: str = "text",
    split_blank_lines: bool = False,
    on_bad_line: OnBadLine = refuse_bad_line,
    pairs: bool = False,
    workers: int = 0,
    progress: Callable[[CountProgress], None] | None = None,
) -> list[GroupCounts]:
    """Count the characters of each group, the groups in the order in which they appear.

    Memory stays flat but for a single line, and for the different pairs of each group where pairs are counted. The
    result does not depend on ``workers``.

    Args:
        sources: what to read.
        by: the field of JSON lines whose value names the group of a document.
        field: name of the field with the text.
        split_blank_lines: whether blank lines separate the documents of plain text files.
        on_bad_line: see ``iter_documents``.
        pairs: whether to count pairs of neighbours within documents as well.
        workers: processes that count; 0 counts in this one.
        progress: called after every batch.
    Raises:
        CorpusError: a source that cannot be read, no document at all; from ``on_bad_line``.
    """
    reading = _Reading(sources, by, field, split_blank_lines, on_bad_line)
    found: dict[str, _Group] = {}
    documents = characters = 0
    with _counter(pairs, workers) as count:
        for batch in count(reading.batches()):
            found.setdefault(batch.group, _Group()).add(batch)
            documents += batch.documents
            characters += batch.characters
            if progress is not None:
                progress(CountProgress(reading.position, reading.num_bytes, documents, characters))
    if not documents:
        names = ", ".join(str(source.path) for source in sources)
        raise CorpusError(f"{names}: found no document, expected at least one")
    return [group.result(name, pairs) for name, group in found.items()]


def weigh(groups: Sequence[GroupCounts], *, equal: bool) -> tuple[NDArray[np.int64], PairCounts | None]:
    """The counts of all groups together and their pairs, where they have them.

    Args:
        groups: what ``count_groups`` returned.
        equal: every group with a character weighs the same; otherwise the counts are simply added.
    """
    groups = [group for group in groups if group.characters]
    with_pairs = [group.pairs for group in groups if group.pairs is not None]
    if equal:
        counts = balance([group.counts for group in groups])
        pairs = balance_pairs(with_pairs, [group.characters for group in groups if group.pairs is not None])
    else:
        counts = sum((group.counts for group in groups), np.zeros(NUM_CODE_POINTS, np.int64))
        pairs = PairCounts.sum(with_pairs)
    return counts, pairs if with_pairs else None


@final
class _Group:
    """The counts of one group as they grow."""

    def __init__(self) -> None:
        self.documents = self.characters = 0
        self._counts = np.zeros(NUM_CODE_POINTS, dtype=np.int64)
        self._pairs = PairCounts.empty()
        self._waiting: list[PairCounts] = []

    def add(self, batch: _BatchCounts) -> None:
        self.documents += batch.documents
        self.characters += batch.characters
        self._counts[batch.points] += batch.counts
        if batch.pairs is not None:
            self._waiting.append(batch.pairs)
            if sum(len(pairs.keys) for pairs in self._waiting) > len(self._pairs.keys):
                self._merge()

    def _merge(self) -> None:
        self._pairs = PairCounts.sum([self._pairs, *self._waiting])
        self._waiting = []

    def result(self, name: str, with_pairs: bool) -> GroupCounts:
        self._merge()
        return GroupCounts(name, self.documents, self.characters, self._counts, self._pairs if with_pairs else None)


@contextmanager
def _counter(pairs: bool, workers: int) -> Iterator[Callable[[Iterator[_Batch]], Iterator[_BatchCounts]]]:
    count = partial(_count_batch, pairs)
    if workers < 0:
        raise CorpusError(f"workers: found {workers}, expected 0 or more")
    if workers == 0:
        yield lambda batches: map(count, batches)
        return
    with worker_pool(workers, ignore_interrupts, ()) as pool:
        yield lambda batches: in_order(pool, count, batches, in_flight=2 * workers + 1)


def _count_batch(pairs: bool, batch: _Batch) -> _BatchCounts:
    code_points = code_points_of(batch.before + batch.text)
    histogram = np.bincount(code_points[len(batch.before) :])
    points = np.flatnonzero(histogram)
    return _BatchCounts(
        group=batch.group,
        documents=batch.documents,
        characters=len(batch.text),
        points=points,
        counts=histogram[points],
        pairs=PairCounts.of(code_points, [len(batch.before) + at for at in batch.breaks]) if pairs else None,
    )


@final
@dataclass(slots=True)
class _Pending:
    """Text of one group that is not in a batch yet."""

    before: str = ""
    texts: list[str] = field(default_factory=list)
    size: int = 0
    breaks: list[int] = field(default_factory=list)
    documents: int = 0

    def add(self, piece: Piece) -> None:
        if piece.begins:
            self.breaks.append(self.size)
        self.texts.append(piece.text)
        self.size += len(piece.text)
        self.documents += piece.ends

    def batch(self, group: str) -> _Batch:
        text = "".join(self.texts)
        batch = _Batch(group, self.before, text, self.breaks, self.documents)
        self.before = text[-1:] or self.before
        self.texts, self.size, self.breaks, self.documents = [], 0, [], 0
        return batch


@final
class _Reading:
    """Reads the sources one after another into batches of one group each."""

    def __init__(
        self,
        sources: Sequence[GroupSource],
        by: str | None,
        field: str,
        split_blank_lines: bool,
        on_bad_line: OnBadLine,
    ) -> None:
        def source_of(path: GroupSource) -> list[Source]:
            return [
                Source(
                    file,
                    field=field,
                    split_blank_lines=split_blank_lines,
                    on_bad_line=on_bad_line,
                    labels=group_labels(by),
                )
                for file in find_sources(path.path)
            ]

        self._files = [(group, file) for group in sources for file in source_of(group)]
        self.num_bytes = sum(file.num_bytes for _, file in self._files)
        self._current = self._files[0][1] if self._files else None
        self._before = 0

    @property
    def position(self) -> int:
        """Bytes of all files that were consumed so far."""
        return self._before + (self._current.position if self._current else 0)

    def batches(self) -> Iterator[_Batch]:
        """All text, about ``_BATCH_CHARACTERS`` characters at a time."""
        pending: dict[str, _Pending] = {}
        size = 0
        for group, piece in self._pieces():
            held = pending.setdefault(group, _Pending())
            for part in cut_piece(piece, _BATCH_CHARACTERS):
                held.add(part)
                size += len(part.text) + 1  # documents without a character count as well
                if size >= _BATCH_CHARACTERS:
                    yield from _batches_of(pending)
                    size = 0
        yield from _batches_of(pending)

    def _pieces(self) -> Iterator[tuple[str, Piece]]:
        before = 0
        for source, file in self._files:
            self._current, self._before = file, before
            for piece in file if source.side == "all" else _on_side(source, file):
                _, *label = piece.labels
                yield source.group_of(file.file, label[0] if label else None), piece
            before += file.num_bytes


def _batches_of(pending: dict[str, _Pending]) -> Iterator[_Batch]:
    for group, held in pending.items():
        if held.texts:
            yield held.batch(group)


def _on_side(source: GroupSource, file: Source) -> Iterator[Piece]:
    """The documents on the side of the split that is read. One without an id must be held whole to be told."""
    held: list[Piece] = []
    for piece in file:
        held.append(piece)
        if piece.ends:
            key = piece.labels[0]
            if source.takes(key or "".join(part.text for part in held)):
                yield from held
            held = []

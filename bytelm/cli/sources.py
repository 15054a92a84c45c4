"""Text from source files, with the account of what could not be used."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bytelm.cli.console import progress_bar, write_error
from bytelm.corpus import BadLine, BuildProgress, CountProgress, Document, SourceFile, find_sources, iter_documents
from bytelm.corpus.readers import refuse_bad_line

_SHOWN = 5
_ALONE_BYTES = 1 << 24  # less than this is read before worker processes have started
_MOST_WORKERS = 8


def default_workers(paths: Sequence[str | Path], most: int | None = None) -> int:
    """How many processes to work with: none where the input is known to be small, else ``most``; by default all
    processors but the one that reads, up to as many as it can feed.

    Raises:
        CorpusError: a path that cannot be read.
    """
    sources = find_sources(paths)
    if (
        all(source.bytes is not None for source in sources)
        and sum(source.num_bytes for source in sources) < _ALONE_BYTES
    ):
        return 0
    return min(_MOST_WORKERS, (os.cpu_count() or 1) - 1) if most is None else most


@contextlib.contextmanager
def source_bar(description: str) -> Iterator[Callable[[BuildProgress | CountProgress], None]]:
    """A progress bar over the bytes of source files; call what it yields to show how far the work has come."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    with progress_bar(*columns) as progress:
        task = progress.add_task(description, total=None, counts="")

        def update(state: BuildProgress | CountProgress) -> None:
            skipped = f", {state.bad_lines} bad lines" if isinstance(state, BuildProgress) and state.bad_lines else ""
            kept = f", {state.kept_parts} parts kept" if isinstance(state, BuildProgress) and state.kept_parts else ""
            progress.update(
                task,
                description=state.stage if isinstance(state, BuildProgress) else description,
                total=state.total_source_bytes,
                completed=state.source_bytes,
                counts=f"{state.documents} documents, {state.characters} characters{skipped}{kept}",
            )

        yield update


class BadLineCounter:
    """Reports the first bad lines on standard error and counts all: ``number`` were called for so far."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, bad: BadLine) -> None:
        """Report and count a bad line."""
        self.number += 1
        if self.number <= _SHOWN:
            write_error(f"warning: {bad.file}:{bad.line}: {bad.reason}; skipped")
        elif self.number == _SHOWN + 1:
            write_error("warning: more bad lines are skipped without a message")


class SourceReader:
    """The documents of files and folders, one after another.

    Args:
        paths: as for ``bytelm corpus build``.
        skip: report the first bad lines on standard error and count all, instead of raising at the first.
    Raises:
        CorpusError: a path that cannot be read; while reading, a bad line that is not skipped.
    """

    def __init__(self, paths: Sequence[str | Path], *, field: str, split_blank_lines: bool, skip: bool) -> None:
        self.paths = find_sources(paths)
        self._bad_lines = BadLineCounter()
        self._field, self._split = field, split_blank_lines
        self._on_bad_line = self._bad_lines if skip else refuse_bad_line

    def documents(self) -> Iterator[tuple[SourceFile, Document]]:
        """Each document with the file that it comes from."""
        for path in self.paths:
            documents = iter_documents(
                path, field=self._field, split_blank_lines=self._split, on_bad_line=self._on_bad_line
            )
            yield from ((path, document) for document in documents)

    @property
    def num_bad_lines(self) -> int:
        """Bad lines skipped so far."""
        return self._bad_lines.number

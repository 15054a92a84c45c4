"""Text from source files, with the account of what could not be used."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bytelm.cli.console import write_error
from bytelm.corpus import BadLine, Document, iter_documents
from bytelm.corpus.readers import Source, find_sources, refuse_bad_line

_SHOWN = 5


class SourceReader:
    """The documents of files and folders, one after another.

    Args:
        paths: as for ``bytelm corpus build``.
        skip: report the first bad lines on standard error and count all, instead of raising at the first.
    Attributes:
        num_bad_lines: bad lines skipped so far.
    Raises:
        CorpusError: a path that cannot be read; while reading, a bad line that is not skipped.
    """

    def __init__(self, paths: Sequence[Path], *, field: str, split_blank_lines: bool, skip: bool) -> None:
        self.paths = find_sources(paths)
        self.num_bad_lines = 0
        self._field, self._split = field, split_blank_lines
        self._on_bad_line = self._count if skip else refuse_bad_line

    def documents(self) -> Iterator[tuple[Path, Document]]:
        """Each document with the file that it comes from."""
        for path in self.paths:
            documents = iter_documents(
                path, field=self._field, split_blank_lines=self._split, on_bad_line=self._on_bad_line
            )
            yield from ((path, document) for document in documents)

    def sources(self) -> list[Source]:
        """The files, to be read in pieces of documents."""
        return [
            Source(path, field=self._field, split_blank_lines=self._split, on_bad_line=self._on_bad_line)
            for path in self.paths
        ]

    def _count(self, bad: BadLine) -> None:
        self.num_bad_lines += 1
        if self.num_bad_lines <= _SHOWN:
            write_error(f"warning: {bad.file}:{bad.line}: {bad.reason}; skipped")
        elif self.num_bad_lines == _SHOWN + 1:
            write_error("warning: more bad lines are skipped without a message")

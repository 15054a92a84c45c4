"""Documents from files: JSON lines, plain text and Parquet, each also compressed, in memory that stays flat."""

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

from bytelm.corpus.compression import open_seekable, open_stream
from bytelm.corpus.files import DATASET, SourceFile, explained, find_source
from bytelm.corpus.manifest import BadLine
from bytelm.errors import CorpusError

MAX_LINE_BYTES = 1 << 28
"""A longer line of a ``.jsonl`` file is a bad line: it would have to be held in memory to be parsed."""

_BLOCK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"

OnBadLine = Callable[[BadLine], None]
"""Called for each line that cannot be used; it may raise, or return to skip the line."""


@final
@dataclass(frozen=True, slots=True)
class Document:
    """A text and the line (of a Parquet file: the row) of the file where it begins, counted from 1.

    ``labels`` are the other fields that were asked for, as text; None where the document has none of that name.
    """

    text: str
    line: int
    labels: tuple[str | None, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a document: the one text of a line or row, or one block of a plain text file.

    ``begins`` and ``ends`` say whether the document begins or ends with this piece.
    """

    text: str
    line: int
    begins: bool = True
    ends: bool = True
    labels: tuple[str | None, ...] = ()


def cut_piece(piece: Piece, characters: int) -> Iterator[Piece]:
    """A piece in parts of at most so many characters; the first begins and the last ends what the piece does."""
    if len(piece.text) <= characters:
        yield piece
        return
    starts = range(0, len(piece.text), characters)
    for start in starts:
        yield dataclasses.replace(
            piece,
            text=piece.text[start : start + characters],
            begins=piece.begins and start == 0,
            ends=piece.ends and start == starts[-1],
        )


def refuse_bad_line(bad: BadLine) -> None:
    """Raise for a bad line: what happens unless bad lines are skipped.

    Raises:
        CorpusError: always; names the file, the line, what was found and what was expected.
    """
    raise CorpusError(f"{bad.file}:{bad.line}: {bad.reason}")


def iter_documents(
    path: str | Path | SourceFile,
    *,
    field: str = "text",
    split_blank_lines: bool = False,
    on_bad_line: OnBadLine = refuse_bad_line,
    labels: Sequence[str] = (),
) -> Iterator[Document]:
    """The documents of one file, in order.

    ``.jsonl``: a JSON object per line with a string ``field``; blank lines are passed over. ``.parquet``: a row of the
    string column ``field`` each. ``.txt``: the whole file is one document, line ends kept, and a file without a
    character holds none; with ``split_blank_lines`` each run of lines that are not blank is one, without its last
    line end. A byte order mark is dropped.

    Args:
        path: a file that ends in .jsonl, .txt or .parquet, perhaps followed by .gz, .xz or .zst; also a URL of one, or
            a shard of a data set, as :func:`~bytelm.corpus.files.find_sources` lists them.
        field: name of the JSON field or Parquet column that holds the text.
        split_blank_lines: whether blank lines separate the documents of a plain text file.
        on_bad_line: called for each line or row that is not UTF-8, not JSON, without the text, or whose text has
            a lone surrogate; the default raises. A plain text file goes on without a line that was skipped.
        labels: names of other fields whose values go with each document; only JSON lines have them.
    Raises:
        CorpusError: a file that cannot be read (missing, unknown ending, truncated or altered); from ``on_bad_line``.
    """
    parts: list[str] = []
    line = 1
    file = path if isinstance(path, SourceFile) else find_source(path)
    for piece in Source(file, field=field, split_blank_lines=split_blank_lines, on_bad_line=on_bad_line, labels=labels):
        line = piece.line if piece.begins else line
        parts.append(piece.text)
        if piece.ends:
            yield Document("".join(parts), line, piece.labels)
            parts = []


@final
class Source:
    """One file as an iterable of :class:`Piece`, holding no more than a line, a block or a few rows at a time.

    The arguments are those of :func:`iter_documents`. ``num_bytes`` is the size of the file on disk.
    """

    def __init__(
        self,
        file: SourceFile,
        *,
        field: str,
        split_blank_lines: bool,
        on_bad_line: OnBadLine,
        labels: Sequence[str] = (),
    ) -> None:
        self.file = file
        self.num_bytes = file.num_bytes
        self._tell: Callable[[], int] = partial(int, 0)
        self._field = field
        self._split_blank_lines = split_blank_lines
        self._on_bad_line = on_bad_line
        self._labels = tuple(labels)

    def __iter__(self) -> Iterator[Piece]:
        try:
            with explained(self.file.name):
                yield from self._dataset() if self.file.name.startswith(DATASET) else self._file()
        finally:
            self._tell = partial(int, self.num_bytes)

    @property
    def _no_labels(self) -> tuple[None, ...]:
        return (None,) * len(self._labels)

    @property
    def position(self) -> int:
        """Bytes of the file that were consumed so far."""
        return self._tell()

    def _bad(self, line: int, reason: object) -> None:
        self._on_bad_line(BadLine(file=self.file.name, line=line, reason=str(reason)))

    def _file(self) -> Iterator[Piece]:
        assert self.file.endings is not None
        kind, compression = self.file.endings
        with self.file.open() as raw:
            if kind == ".parquet":
                with open_seekable(raw, compression) as file:
                    yield from self._parquet(file)
            else:
                self._tell = raw.tell
                with open_stream(raw, compression) as stream:
                    yield from self._jsonl(stream) if kind == ".jsonl" else self._txt(stream)

    def _jsonl(self, stream: io.BufferedIOBase) -> Iterator[Piece]:
        line = 0
        while data := stream.readline(MAX_LINE_BYTES + 1):
            line += 1
            if line == 1:
                data = data.removeprefix(_BOM)
            if len(data) > MAX_LINE_BYTES and not data.endswith(b"\n"):
                while (rest := stream.readline(_BLOCK_BYTES)) and not rest.endswith(b"\n"):
                    pass
                self._bad(line, f"found more than {MAX_LINE_BYTES} bytes, expected one JSON object on each line")
            elif data and not data.isspace():
                try:
                    text, labels = _parse_json(data, self._field, self._labels)
                except _BadTextError as error:
                    self._bad(line, error)
                else:
                    yield Piece(text, line, labels=labels)

    def _parquet(self, file: io.BufferedIOBase) -> Iterator[Piece]:
        from bytelm.corpus.parquet import iter_rows  # pyarrow takes longer to import than all the rest

        for row, (value, part_read) in enumerate(iter_rows(file, self.file, self._field), 1):
            self._tell = partial(int, self.num_bytes * part_read)
            try:
                text = _row_text(value, self._field)
            except _BadTextError as error:
                self._bad(row, f"{error} (counted in rows, not lines)")
            else:
                yield Piece(text, row, labels=self._no_labels)

    def _dataset(self) -> Iterator[Piece]:
        from bytelm.corpus.hub_datasets import iter_rows  # what it needs is an extra

        for row, value in enumerate(iter_rows(self.file.name, self._field), 1):
            try:
                text = _checked_text(value, self._field, "expected a string", surrogates=True)
            except _BadTextError as error:
                self._bad(row, f"{error} (counted in rows, not lines)")
            else:
                yield Piece(text, row, labels=self._no_labels)

    def _txt(self, stream: io.BufferedIOBase) -> Iterator[Piece]:
        blocks = self._text_blocks(stream)
        pieces = _split_at_blank_lines(blocks) if self._split_blank_lines else _one_document(blocks)
        return (dataclasses.replace(piece, labels=self._no_labels) for piece in pieces) if self._labels else pieces

    def _text_blocks(self, stream: io.BufferedIOBase) -> Iterator[tuple[str, int]]:
        """The file in blocks of whole lines (of whole characters where one line is longer than a block), with the
        number of the line on which each begins.
        """
        line, held = 1, stream.read(_BLOCK_BYTES).removeprefix(_BOM)
        while held:
            more = stream.read(_BLOCK_BYTES)
            cut = (held.rfind(b"\n") + 1 or _whole_characters(held)) if more else len(held)
            block, held = held[:cut], held[cut:] + more
            try:
                yield block.decode("utf-8"), line
            except UnicodeDecodeError:
                yield from self._good_lines(block, line)
            line += block.count(b"\n")

    def _good_lines(self, block: bytes, first: int) -> Iterator[tuple[str, int]]:
        """The lines of a block that are UTF-8; the others are reported."""
        for line, data in enumerate(io.BytesIO(block), first):
            try:
                text = _decode(data)
            except _BadTextError as error:
                self._bad(line, error)
            else:
                yield text, line


class _BadTextError(Exception):
    """A line or row without a usable text; the message says what was found and what was expected."""


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = error.object[error.start : error.end].hex(" ")
        raise _BadTextError(f"found the bytes {found} at byte {error.start} ({error.reason}), expected UTF-8") from None


def _parse_json(data: bytes, field: str, labels: Sequence[str]) -> tuple[str, tuple[str | None, ...]]:
    expected = f"expected a JSON object with a string field {field!r}"
    try:
        record = json.loads(_decode(data))
    except json.JSONDecodeError as error:
        raise _BadTextError(f"found no JSON ({error.msg} at character {error.pos}), {expected}") from None
    except (ValueError, RecursionError) as error:
        raise _BadTextError(f"found JSON that cannot be read ({error}), {expected}") from None
    if not isinstance(record, dict):
        raise _BadTextError(f"found {_json_kind(record)}, {expected}")
    if field not in record:
        names = ", ".join(map(repr, list(record)[:8])) or "no field"
        raise _BadTextError(f"found {names}, {expected}")
    # UTF-8 holds no surrogates: only an escape can have made one
    text = _checked_text(record[field], field, expected, surrogates=b"\\u" in data)
    return text, tuple(None if record.get(name) is None else str(record[name]) for name in labels)


def _checked_text(value: object, field: str, expected: str, *, surrogates: bool) -> str:
    if not isinstance(value, str):
        raise _BadTextError(f"found {_json_kind(value)} as {field!r}, {expected}")
    if surrogates:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            found = f"U+{ord(value[error.start]):04X} at character {error.start} of {field!r}"
            raise _BadTextError(f"found the lone surrogate {found}, expected Unicode scalar values") from None
    return value


def _json_kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _row_text(value: bytes | None, field: str) -> str:
    if value is None:
        raise _BadTextError(f"found null as {field!r}, expected a string")
    return _decode(value)


def _whole_characters(data: bytes) -> int:
    """The length of ``data`` without a UTF-8 character that its last bytes only begin."""
    for back in range(1, 4):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if length > back else len(data)
        if byte < 0x80:
            break
    return len(data)


def _one_document(blocks: Iterator[tuple[str, int]]) -> Iterator[Piece]:
    begun = False
    for text, line in blocks:
        yield Piece(text, line, begins=not begun, ends=False)
        begun = True
    if begun:
        yield Piece("", 1, begins=False, ends=True)


def _split_at_blank_lines(blocks: Iterator[tuple[str, int]]) -> Iterator[Piece]:
    """Runs of lines that are not blank. A line end is held back until the next line is known to belong to the run."""
    begun, at_line_start, held = False, True, ""
    for block, first in blocks:
        for line, text in enumerate(io.StringIO(block, newline="\n"), first):
            body = text.rstrip("\r\n")
            blank = at_line_start and not body.strip()
            if blank and text.endswith("\n"):
                if begun:
                    yield Piece("", line, begins=False, ends=True)
                begun, held = False, ""
            elif body and not blank:
                yield Piece(held + body, line, begins=not begun, ends=False)
                begun, held = True, text[len(body) :]
            else:  # nothing but a line end, or spaces whose line goes on in the next block
                held += text
            at_line_start = blank or text.endswith("\n")
    if begun:
        yield Piece("", 1, begins=False, ends=True)

"""Documents from files: JSON lines, plain text and Parquet, each also compressed, in memory that stays flat."""

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, final

from bytelm.corpus.compression import COMPRESSIONS, DAMAGE, open_seekable, open_stream
from bytelm.corpus.manifest import BadLine
from bytelm.errors import CorpusError

FORMATS = (".jsonl", ".txt", ".parquet")
"""File name endings of the formats that are read, each alone or followed by one of ``COMPRESSIONS``."""

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


def find_sources(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files to read: files as given, and of each folder all files of a known ending at any depth, sorted by path.

    Raises:
        CorpusError: no path, one that does not exist, a file with an unknown ending, a folder without a file to read.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    if not paths:
        raise CorpusError("found no path to read from, expected files or folders")
    sources: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if _endings(p) is not None and p.is_file())
            if not found:
                raise CorpusError(f"{path}: found no file to read in this folder, expected {_EXPECTED_ENDINGS}")
            sources += found
        else:
            _check_file(path)
            sources.append(path)
    return sources


def iter_documents(
    path: str | Path,
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
        path: a file that ends in .jsonl, .txt or .parquet, perhaps followed by .gz, .xz or .zst.
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
    for piece in Source(
        Path(path), field=field, split_blank_lines=split_blank_lines, on_bad_line=on_bad_line, labels=labels
    ):
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
        path: Path,
        *,
        field: str,
        split_blank_lines: bool,
        on_bad_line: OnBadLine,
        labels: Sequence[str] = (),
    ) -> None:
        self._kind, self._compression = _check_file(path)
        self.path = path
        self.num_bytes = path.stat().st_size
        self._tell: Callable[[], int] = partial(int, 0)
        self._field = field
        self._split_blank_lines = split_blank_lines
        self._on_bad_line = on_bad_line
        self._labels = tuple(labels)

    def __iter__(self) -> Iterator[Piece]:
        try:
            with self.path.open("rb") as raw:
                if self._kind == ".parquet":
                    with open_seekable(raw, self._compression) as file:
                        yield from self._parquet(file)
                else:
                    self._tell = raw.tell
                    with open_stream(raw, self._compression) as stream:
                        yield from self._jsonl(stream) if self._kind == ".jsonl" else self._txt(stream)
        except DAMAGE as error:
            raise CorpusError(f"{self.path}: found a truncated or altered compressed file ({error})") from None
        except OSError as error:
            raise CorpusError(f"{self.path}: {error.strerror or error}") from None
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
        self._on_bad_line(BadLine(file=str(self.path), line=line, reason=str(reason)))

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

    def _parquet(self, file: IO[bytes]) -> Iterator[Piece]:
        from bytelm.corpus.parquet import iter_rows  # pyarrow takes longer to import than all the rest

        for row, (value, part_read) in enumerate(iter_rows(file, self.path, self._field), 1):
            self._tell = partial(int, self.num_bytes * part_read)
            try:
                text = _row_text(value, self._field)
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


_EXPECTED_ENDINGS = f"{', '.join(FORMATS)}, each alone or followed by {', '.join(COMPRESSIONS)}"


def _endings(path: Path) -> tuple[str, str] | None:
    """The format and the compression that a file name ends in, or None."""
    *_, before, last = "", "", *(suffix.lower() for suffix in path.suffixes)
    if last in FORMATS:
        return last, ""
    return (before, last) if last in COMPRESSIONS and before in FORMATS else None


def _check_file(path: Path) -> tuple[str, str]:
    if not path.exists():
        raise CorpusError(f"{path}: no such file or folder")
    if not path.is_file():
        raise CorpusError(f"{path}: not a file")
    endings = _endings(path)
    if endings is None:
        raise CorpusError(f"{path}: found the ending {''.join(path.suffixes[-2:])!r}, expected {_EXPECTED_ENDINGS}")
    return endings


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
    text = record[field]
    if not isinstance(text, str):
        raise _BadTextError(f"found {_json_kind(text)} as {field!r}, {expected}")
    if b"\\u" in data:  # UTF-8 holds no surrogates: only an escape can have made one
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            found = f"U+{ord(text[error.start]):04X} at character {error.start} of {field!r}"
            raise _BadTextError(f"found the lone surrogate {found}, expected Unicode scalar values") from None
    return text, tuple(None if record.get(name) is None else str(record[name]) for name in labels)


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

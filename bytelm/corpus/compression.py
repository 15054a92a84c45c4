"""One binary stream over a plain or compressed file. A file that ends too early is an error, never a short text."""

import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast, final

import zstandard

COMPRESSIONS = (".gz", ".xz", ".zst")
"""File name endings of the compressions that are read."""

DAMAGE = (EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile)
"""What reading a truncated or altered compressed file raises."""

_BUFFER_BYTES = 1 << 20
_ZSTD_INPUT_BYTES = 1 << 9  # which expand to 16 MiB at worst


@contextmanager
def open_stream(raw: io.BufferedReader, compression: str) -> Iterator[io.BufferedIOBase]:
    """The decompressed content of an open file, to be read forwards. Only a buffer of it is held in memory.

    Args:
        raw: a file opened for reading bytes; its position tells how much of it was consumed.
        compression: one of :data:`COMPRESSIONS`, or "" for none.
    Raises:
        one of :data:`DAMAGE`, while reading, when the file is truncated or altered.
    """
    match compression:
        case "":
            yield raw
        case ".gz":
            with gzip.open(raw, "rb") as gz, io.BufferedReader(cast(io.RawIOBase, gz), _BUFFER_BYTES) as stream:
                yield stream
        case ".xz":
            with lzma.open(raw, "rb") as xz, io.BufferedReader(cast(io.RawIOBase, xz), _BUFFER_BYTES) as stream:
                yield stream
        case ".zst":
            with io.BufferedReader(_ZstdFile(raw), _BUFFER_BYTES) as stream:
                yield stream
        case _:
            raise AssertionError(compression)


@contextmanager
def open_seekable(raw: io.BufferedReader, compression: str) -> Iterator[io.BufferedIOBase]:
    """Like :func:`open_stream`, for formats that are not read forwards: decompressed to a temporary file on disk."""
    if not compression:
        yield raw
        return
    with tempfile.TemporaryFile() as whole:
        with open_stream(raw, compression) as stream:
            shutil.copyfileobj(stream, whole, _BUFFER_BYTES)
        whole.seek(0)
        yield cast(io.BufferedIOBase, whole)


@final
class _ZstdFile(io.RawIOBase):
    """Zstandard frames, one after another. ``zstandard.stream_reader`` takes a truncated frame for a complete one."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self._raw = raw
        self._context = zstandard.ZstdDecompressor()
        self._frame = self._context.decompressobj()
        self._at_frame_start = True
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._output:
            self._input = self._input or self._raw.read(_ZSTD_INPUT_BYTES)
            if not self._input:
                if self._at_frame_start:
                    return 0
                raise EOFError("Compressed file ended before the end of its last frame")
            self._at_frame_start = False
            self._output = memoryview(self._frame.decompress(self._input))
            self._input = b""
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = self._context.decompressobj()
                self._at_frame_start = True
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

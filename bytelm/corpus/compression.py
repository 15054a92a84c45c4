"""One binary stream over a plain or compressed file. A file that ends too early is an error, never a short text."""

import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, cast, final

import zstandard

COMPRESSIONS = (".gz", ".xz", ".zst")
"""File name endings of the compressions that are read."""

DAMAGE = (EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile)
"""What reading a truncated or altered compressed file raises."""

_BUFFER_BYTES = 1 << 20
_ZSTD_INPUT_BYTES = 1 << 9  # which expand to 16 MiB at worst
_XZ_INPUT_BYTES = 1 << 12  # to 28 MiB
_XZ_MEMORY_BYTES = 1 << 28  # of a reader; what `xz -9` writes needs 65 MiB
_MOST_EXPANSION, _CHECKED_FROM_BYTES = 500, 1 << 28


class _BombError(EOFError):
    """A file that expands to far more than text does."""


@contextmanager
def open_stream(raw: io.BufferedReader, compression: str) -> Iterator[io.BufferedIOBase]:
    """The decompressed content of an open file, to be read forwards. Only a buffer of it is held in memory.

    Args:
        raw: a file opened for reading bytes; its position tells how much of it was consumed.
        compression: one of :data:`COMPRESSIONS`, or "" for none.
    Raises:
        one of :data:`DAMAGE`, while reading, when the file is truncated or altered, asks for more memory than a reader
        of text needs, or expands to more than 500 times its size and more than 256 MiB.
    """
    if not compression:
        yield raw
        return
    with io.BufferedReader(_Expanding(_decompressed(raw, compression), raw), _BUFFER_BYTES) as stream:
        yield stream


def _decompressed(raw: io.BufferedReader, compression: str) -> io.BufferedIOBase | io.RawIOBase:
    match compression:
        case ".gz":
            return cast(io.BufferedIOBase, gzip.open(raw, "rb"))
        case ".xz":
            return _Frames(raw, _XzFrame, _XZ_INPUT_BYTES)
        case ".zst":
            return _Frames(raw, partial(_ZstdFrame, zstandard.ZstdDecompressor()), _ZSTD_INPUT_BYTES)
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
class _Expanding(io.RawIOBase):
    """A decompressed stream that ends where it has become far larger than the file it comes from."""

    def __init__(self, stream: io.BufferedIOBase | io.RawIOBase, raw: io.BufferedReader) -> None:
        self._stream, self._raw = stream, raw
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = self._stream.readinto(buffer) or 0
        self._size += count
        if self._size > _CHECKED_FROM_BYTES and self._size > _MOST_EXPANSION * self._raw.tell():
            raise _BombError(f"{self._raw.tell()} bytes of it expand to more than {self._size}")
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Frame(Protocol):
    """What reads one frame, a bounded number of bytes at a time.

    Attributes:
        eof: the frame is at its end.
        needs_input: nothing more comes of what it was given.
        unused_data: that it was given and that stands after its end.
        padding: bytes that may stand between frames.
    """

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def padding(self) -> bytes: ...

    def decompress(self, data: bytes) -> bytes: ...


@final
class _XzFrame:
    """An .xz stream. ``lzma.open`` gives a file all the memory that it asks for."""

    padding = b"\0"

    def __init__(self) -> None:
        self._xz = lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)

    @property
    def eof(self) -> bool:
        return self._xz.eof

    @property
    def needs_input(self) -> bool:
        return self._xz.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._xz.unused_data

    def decompress(self, data: bytes) -> bytes:
        return self._xz.decompress(data, _BUFFER_BYTES)


@final
class _ZstdFrame:
    """A frame of Zstandard. ``zstandard.stream_reader`` takes a truncated one for a complete one."""

    padding = b""
    needs_input = True

    def __init__(self, context: zstandard.ZstdDecompressor) -> None:
        self._zstd = context.decompressobj()

    @property
    def eof(self) -> bool:
        return self._zstd.eof

    @property
    def unused_data(self) -> bytes:
        return self._zstd.unused_data

    def decompress(self, data: bytes) -> bytes:
        return self._zstd.decompress(data)


@final
class _Frames(io.RawIOBase):
    """Compressed frames, one after another.

    Args:
        raw: the file.
        begin: makes what reads a frame.
        input_bytes: that are decompressed at a time.
    """

    def __init__(self, raw: io.BufferedReader, begin: Callable[[], _Frame], input_bytes: int) -> None:
        self._raw, self._begin, self._input_bytes = raw, begin, input_bytes
        self._frame, self._fresh, self._num_frames = begin(), True, 0
        self._left = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Put decompressed bytes into ``buffer``, and say how many; 0 at the end of the last frame."""
        while not self._output:
            data = b""
            if self._fresh or self._frame.needs_input:
                data = self._next_input()
                if not data and self._fresh:
                    return 0
                if not data:
                    raise EOFError("Compressed file ended before the end of its last frame")
            self._fresh = False
            self._output = memoryview(self._frame.decompress(data))
            if self._frame.eof:
                self._left = self._frame.unused_data
                self._frame, self._fresh, self._num_frames = self._begin(), True, self._num_frames + 1
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _next_input(self) -> bytes:
        """Bytes of a frame; none at the end of the file."""
        while True:
            data, self._left = self._left or self._raw.read(self._input_bytes), b""
            if not data or not self._fresh or not self._num_frames or not self._frame.padding:
                return data
            if data := data.lstrip(self._frame.padding):
                return data

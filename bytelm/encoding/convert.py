"""Python text, Unicode scalar values and byte arrays, in one another's form."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bytelm.errors import EncodingError

NUM_CODE_POINTS: Final = 0x110000
NUM_SCALARS: Final = NUM_CODE_POINTS - 0x800
REPLACEMENT: Final = 0xFFFD
"""The scalar value that stands for a malformed piece in text."""

ESCAPES: Final = range(0xDC80, 0xDD00)
"""The lone surrogates by which Python's ``surrogateescape`` (PEP 383) carries the bytes 80..FF of what is not UTF-8."""

NUM_WORDS: Final = NUM_SCALARS + len(ESCAPES)
"""What every encoding has a code word for, besides its controls."""

ByteData = bytes | bytearray | memoryview | NDArray[Any] | Sequence[int]
"""Anything that holds byte values 0..255 in one dimension."""


def as_bytes(data: ByteData) -> NDArray[np.uint8]:
    """``data`` as uint8[n], without a copy where it already is.

    Raises:
        EncodingError: it is not one-dimensional, or holds something other than integers 0..255.
    """
    if isinstance(data, bytes | bytearray):
        return np.frombuffer(data, dtype=np.uint8)
    array = np.asarray(data)
    if array.ndim != 1:
        raise EncodingError(f"byte data: found {array.ndim} dimensions, expected 1")
    if array.dtype == np.uint8:
        return array
    if array.size == 0:
        return np.empty(0, dtype=np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise EncodingError(f"byte data: found values of type {array.dtype}, expected integers 0..255")
    outside = (array < 0) | (array > 255)
    if outside.any():
        index = int(outside.argmax())
        raise EncodingError(f"byte offset {index}: found {array[index]}, expected an integer 0..255")
    return array.astype(np.uint8)


def code_points_of(text: str, offset: int = 0, *, escapes: bool = False) -> NDArray[np.uint32]:
    """The scalar values of ``text``, with ``escapes`` also the surrogates of ``ESCAPES``: uint32[len(text)].

    Raises:
        EncodingError: any other lone surrogate, by its index in ``text`` plus ``offset``.
    """
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32, copy=False)
    refused = (points & 0xFFFFF800) == 0xD800
    if escapes:
        refused &= (points < ESCAPES.start) | (points >= ESCAPES.stop)
    if refused.any():
        index = int(refused.argmax())
        raise EncodingError(
            f"text index {index + offset}: found the lone surrogate U+{points[index]:04X}, expected "
            + ("a Unicode scalar value or an escaped byte U+DC80..U+DCFF" if escapes else "a Unicode scalar value")
        )
    return points


def scalars_to_text(scalars: NDArray[np.int32]) -> str:
    """The text with these scalar values and escapes."""
    return scalars.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def all_scalars() -> NDArray[np.int64]:
    """All 1,112,064 Unicode scalar values in order."""
    return np.concatenate([np.arange(0xD800), np.arange(0xE000, NUM_CODE_POINTS)])


def all_values() -> NDArray[np.int64]:
    """What has a code word: all scalar values in order, then the escapes."""
    return np.concatenate([all_scalars(), np.arange(ESCAPES.start, ESCAPES.stop)])

"""What every encoding shares: a table of code words, and decoding built on top of ``parse``."""

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bytelm.errors import EncodingError

FORMAT_VERSION = 1
NUM_CODE_POINTS = 0x110000
NUM_SCALARS = NUM_CODE_POINTS - 0x800
CONTROL_NAMES = ("<|pad|>", "<|bos|>", "<|eos|>", "<|user0|>", "<|user1|>", "<|user2|>", "<|user3|>", "<|user4|>")
INVALID = -1000
"""The value that ``parse`` gives a malformed piece; values between it and 0 are controls."""

REPLACEMENT = 0xFFFD
"""The scalar value that stands for a malformed piece in text."""

ByteData = bytes | bytearray | memoryview | NDArray[Any] | Sequence[int]
"""Anything that holds byte values 0..255 in one dimension."""

_CHUNK = 1 << 20  # characters encoded at a time, so that scratch memory does not grow with the text


class Encoding(ABC):
    """A stateless, total, injective and prefix-free map from Unicode scalar values to byte strings of 1 to 4 bytes.

    Subclasses describe one family each: they build the table of code words and implement :meth:`parse` and
    :meth:`_unfinished`; the rest is here. Instances are immutable and safe to share between threads.

    Attributes:
        name: the name in the registry.
        unit: the length of every code word is a multiple of this many bytes.
        max_word: the length of the longest code word, in bytes.
        controls: control string to code word, in the order of ``CONTROL_NAMES``. Text never produces them.
        words: big-endian uint32[0x110000], the code word of each code point, left-aligned, padded with zero bytes.
        lengths: uint8[0x110000], the length of each code word in bytes; 0 for surrogates, which have none.
    """

    family: ClassVar[str]

    def __init__(
        self, name: str, unit: int, words: NDArray[np.uint32], lengths: NDArray[np.uint8], controls: Sequence[bytes]
    ) -> None:
        assert words.shape == lengths.shape == (NUM_CODE_POINTS,)
        assert len(controls) == len(CONTROL_NAMES)
        self.name = name
        self.unit = unit
        self.words = words.astype(">u4")
        self.lengths = lengths
        self.words.flags.writeable = False
        self.lengths.flags.writeable = False
        self.controls: Mapping[str, bytes] = MappingProxyType(dict(zip(CONTROL_NAMES, controls, strict=True)))
        self.max_word = max(int(lengths.max()), *map(len, controls))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, digest={self.digest[:12]!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoding):
            return NotImplemented
        return self.name == other.name and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.name, self.digest))

    def __reduce__(self) -> tuple[Any, ...]:
        from bytelm.encoding.registry import encoding_from_dict  # the registry imports the families

        return encoding_from_dict, (self.to_dict(),)

    # Identity

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the whole mapping: the length and word of every code point, then every control's word."""
        sha = hashlib.sha256(b"bytelm encoding 1\n")
        sha.update(self.lengths.tobytes())
        sha.update(self.words.tobytes())
        for control, word in self.controls.items():
            sha.update(f"{control}={word.hex()}\n".encode("ascii"))
        return sha.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """What ``encoding_from_dict`` needs to rebuild this encoding; JSON-serialisable, and checked by its digest."""
        return {
            "format_version": FORMAT_VERSION,
            "family": self.family,
            "name": self.name,
            **self._parameters(),
            "controls": {control: word.hex() for control, word in self.controls.items()},
            "digest": self.digest,
        }

    def _parameters(self) -> dict[str, Any]:
        """The family's own fields of :meth:`to_dict`, which are the arguments of the constructor besides the name."""
        return {}

    # Encoding

    def encode(self, text: str) -> NDArray[np.uint8]:
        """The code words of ``text``, one after another: uint8[n], writable.

        Raises:
            EncodingError: ``text`` holds a lone surrogate; the message gives its index.
        """
        parts = [self._encode_chunk(text, start) for start in range(0, len(text), _CHUNK)]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])

    def _encode_chunk(self, text: str, start: int) -> NDArray[np.uint8]:
        code_points = code_points_of(text[start : start + _CHUNK], start)
        lengths = self.lengths[code_points]
        rows = self.words.view(np.uint32)[code_points].view(np.uint8).reshape(-1, 4)
        return rows[np.arange(4, dtype=np.uint8) < lengths[:, None]]

    def bytes_per_character(self, counts: NDArray[np.int64]) -> float:
        """Mean length of a code word, in bytes, over characters counted by ``count_characters``."""
        return float(counts @ self.lengths.astype(np.int64)) / float(counts.sum())

    # Decoding

    @abstractmethod
    def parse(self, data: ByteData) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Cut ``data`` into code words, controls and malformed pieces, without gaps.

        Returns:
            ``(values, starts)``, one entry per piece: ``values`` is a scalar value (>= 0), ``-1-k`` for control number
            k, or ``INVALID``; ``starts`` is the byte offset of the piece.
        """

    @abstractmethod
    def _unfinished(self, data: NDArray[np.uint8]) -> int:
        """Number of bytes at the end of ``data`` whose piece depends on bytes that have not come yet."""

    def decode(self, data: ByteData, errors: Literal["strict", "replace"] = "strict") -> str:
        """The text whose code words ``data`` holds.

        With ``errors="replace"`` every malformed piece, unfinished word and control code word, as :meth:`parse` cuts
        them, becomes one U+FFFD. Cutting ``data`` at :meth:`complete` and decoding both parts gives the same text.

        Raises:
            EncodingError: with ``errors="strict"``, at the first malformed piece or control, with its byte offset.
        """
        check_errors(errors)
        array = as_bytes(data)
        values, starts = self.parse(array)
        if errors == "strict":
            self.check_pieces(array, values, starts)
        else:
            values[values < 0] = REPLACEMENT
        return scalars_to_text(values)

    def check_pieces(
        self,
        data: NDArray[np.uint8],
        values: NDArray[np.int32],
        starts: NDArray[np.int64],
        *,
        allow_controls: bool = False,
    ) -> None:
        """Refuse malformed pieces, and controls unless allowed, in what :meth:`parse` returned for ``data``.

        Raises:
            EncodingError: the byte offset, the bytes in hex and the reason, for the first such piece.
        """
        bad = values <= INVALID if allow_controls else values < 0
        if not bad.any():
            return
        first = int(bad.argmax())
        start = int(starts[first])
        stop = int(starts[first + 1]) if first + 1 < len(starts) else len(data)
        if values[first] > INVALID:
            reason = f"control {CONTROL_NAMES[-1 - int(values[first])]}, which is not text"
        elif start >= self.complete(data):
            reason = "an unfinished code word"
        else:
            reason = "not a code word"
        raise EncodingError(
            f"byte offset {start}: found {data[start:stop].tobytes().hex(' ')}, {reason}; "
            f"expected a code word of {self.name}"
        )

    def word_starts(self, data: ByteData) -> NDArray[np.bool_]:
        """bool[n]: where a code word, control or malformed piece begins."""
        array = as_bytes(data)
        mask = np.zeros(len(array), dtype=np.bool_)
        mask[self.parse(array)[1]] = True
        return mask

    def complete(self, data: ByteData) -> int:
        """Length of the longest prefix of ``data`` that later bytes cannot change the meaning of.

        It ends at the end of a code word, a control or a piece that is malformed for good; what follows it (at most
        ``max_word - 1`` bytes) is an unfinished word.
        """
        array = as_bytes(data)
        return len(array) - self._unfinished(array)


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


def check_errors(errors: str) -> None:
    """Refuse an ``errors`` argument other than "strict" and "replace"."""
    if errors not in ("strict", "replace"):
        raise EncodingError(f"errors: found {errors!r}, expected 'strict' or 'replace'")


def code_points_of(text: str, offset: int = 0) -> NDArray[np.uint32]:
    """The scalar values of ``text``: uint32[len(text)].

    Raises:
        EncodingError: a lone surrogate, by its index in ``text`` plus ``offset``.
    """
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4").astype(np.uint32, copy=False)
    except UnicodeEncodeError as error:
        raise lone_surrogate(error, offset) from None


def lone_surrogate(error: UnicodeEncodeError, offset: int = 0) -> EncodingError:
    """The error for text that Python's own codec refused."""
    code_point = ord(error.object[error.start])
    return EncodingError(
        f"text index {error.start + offset}: found the lone surrogate U+{code_point:04X}, "
        "expected a Unicode scalar value"
    )


def scalars_to_text(scalars: NDArray[np.int32]) -> str:
    """The text with these scalar values."""
    return scalars.astype("<u4").tobytes().decode("utf-32-le")


def all_scalars() -> NDArray[np.int64]:
    """All 1,112,064 Unicode scalar values in order."""
    return np.concatenate([np.arange(0xD800), np.arange(0xE000, NUM_CODE_POINTS)])

"""The encodings once more, in plain Python: one character and one piece at a time, from the definitions.

Slow and obvious; the tests hold the fast coders to it on text and on bytes that are no text. Read it to learn what a
code word is, and how each family cuts bytes that are not code words into pieces.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from bytelm.encoding.base import INVALID, Encoding, Errors, check_errors
from bytelm.encoding.convert import ESCAPES, REPLACEMENT
from bytelm.encoding.dense import DenseEncoding
from bytelm.encoding.ranked2 import Ranked2Encoding
from bytelm.errors import EncodingError

SCALARS = [*range(0xD800), *range(0xE000, 0x110000)]


class ReferenceCoder(ABC):
    """A code word for each value: the 1,112,064 scalar values, and the 128 escaped bytes U+DC80..U+DCFF."""

    @abstractmethod
    def word(self, value: int) -> bytes:
        """The code word of a scalar value or an escaped byte."""

    @abstractmethod
    def piece(self, data: bytes) -> tuple[int, int]:
        """What stands at the beginning of ``data`` (1 to 4 bytes, fewer than 4 only at the end), and its length.

        The first is a value, ``-1-k`` for control number k, or ``INVALID``.
        """

    def encode(self, text: str, errors: str = "strict") -> bytes:
        """The words of all characters. Escaped bytes are taken with ``errors="surrogateescape"`` only."""
        words = []
        for index, character in enumerate(text):
            value = ord(character)
            escaped = value in ESCAPES and errors == "surrogateescape"
            if 0xD800 <= value < 0xE000 and not escaped:
                raise EncodingError(f"text index {index}: found the lone surrogate U+{value:04X}")
            words.append(self.word(value))
        return b"".join(words)

    def parse(self, data: bytes) -> tuple[list[int], list[int]]:
        """The values and the offsets of all pieces, one after another."""
        values, starts, at = [], [], 0
        while at < len(data):
            value, length = self.piece(data[at : at + 4])
            values.append(value)
            starts.append(at)
            at += length
        return values, starts

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """The text of all pieces: what is no character is refused, or replaced by one U+FFFD."""
        check_errors(errors)
        text = ""
        for value, start in zip(*self.parse(data), strict=True):
            escaped = value in ESCAPES
            if value >= 0 and (not escaped or errors == "surrogateescape"):
                text += chr(value)
            elif errors == "replace":
                text += chr(REPLACEMENT)
            else:
                raise EncodingError(f"byte offset {start}: found no character")
        return text


def ranking(ranked: str) -> list[int]:
    """All values by rank: the ranked characters, the other scalar values in their order, the escaped bytes."""
    first = [ord(character) for character in ranked]
    known = set(first)
    return first + [scalar for scalar in SCALARS if scalar not in known] + list(ESCAPES)


class ReferenceDense(ReferenceCoder):
    """(s,c)-dense: words of each length are counted upwards like numbers, the stopper turning fastest.

    Bytes 0..s-1 are stoppers, s..s+c-1 continuers, the rest controls. A piece is up to three continuers and the stopper
    that follows them, if one does.
    """

    def __init__(self, s: int, c: int, ranked: str) -> None:
        self.s, self.c = s, c
        self.values = ranking(ranked)
        self.rank = {value: rank for rank, value in enumerate(self.values)}

    def word(self, value: int) -> bytes:
        """The rank as a number of the tier of its length."""
        rank, length = self.rank[value], 1
        while rank >= self.s * self.c ** (length - 1):
            rank -= self.s * self.c ** (length - 1)
            length += 1
        rank, stopper = divmod(rank, self.s)
        word = [stopper]
        for _ in range(length - 1):
            rank, digit = divmod(rank, self.c)
            word.insert(0, self.s + digit)
        return bytes(word)

    def piece(self, data: bytes) -> tuple[int, int]:
        """Continuers, then a stopper."""
        if data[0] >= self.s + self.c:
            return self.s + self.c - 1 - data[0], 1
        length = 0
        while length < min(3, len(data)) and self.s <= data[length] < self.s + self.c:
            length += 1
        if length == len(data) or data[length] >= self.s:
            return INVALID, length
        rank = sum(self.s * self.c**k for k in range(length))
        high = 0
        for byte in data[:length]:
            high = high * self.c + byte - self.s
        rank += high * self.s + data[length]
        return (self.values[rank] if rank < len(self.values) else INVALID), length + 1


class ReferencePairs(ReferenceCoder):
    """16-bit units, big-endian: a unit alone, or a lead unit and a trail unit; some units are controls.

    A lead without a trail, a trail without a lead, a pair that stands for nothing and an odd last byte are pieces of
    their own; at the end of the data, so are a lead and the first byte of a trail together.
    """

    def __init__(
        self, singles: Mapping[int, int], pairs: Sequence[int], leads: range, trails: range, controls: range
    ) -> None:
        self.singles, self.pairs = singles, pairs
        self.leads, self.trails, self.controls = leads, trails, controls
        self.words = {value: unit.to_bytes(2, "big") for unit, value in singles.items()}
        for index, value in enumerate(pairs):
            lead, trail = divmod(index, len(trails))
            self.words[value] = leads[lead].to_bytes(2, "big") + trails[trail].to_bytes(2, "big")

    def word(self, value: int) -> bytes:
        """From the list of all words."""
        return self.words[value]

    def piece(self, data: bytes) -> tuple[int, int]:
        """A unit or two."""
        if len(data) == 1:
            return INVALID, 1
        unit, following = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        if unit in self.leads and len(data) >= 4 and following in self.trails:
            index = self.leads.index(unit) * len(self.trails) + self.trails.index(following)
            return (self.pairs[index] if index < len(self.pairs) else INVALID), 4
        if unit in self.leads and len(data) == 3 and any(trail >> 8 == data[2] for trail in self.trails):
            return INVALID, 3
        if unit in self.controls:
            return -1 - self.controls.index(unit), 2
        return self.singles.get(unit, INVALID), 2


def utf16() -> ReferencePairs:
    """UTF-16: the surrogates are the leads and trails, and where a trail cannot be, controls and escaped bytes."""
    units = [*range(0xD800), *ESCAPES, *range(0xE000, 0x10000)]
    return ReferencePairs(
        {unit: unit for unit in units},
        range(0x10000, 0x110000),
        range(0xD800, 0xDC00),
        range(0xDC00, 0xE000),
        range(0xDC00, 0xDC08),
    )


def ranked2(ranked: str, num_controls: int) -> ReferencePairs:
    """The first ranks alone, the later ones as pairs; 1,024 leads, 1,088 trails and the controls come last."""
    values = ranking(ranked)
    num_singles = 65536 - 1024 - 1088 - num_controls
    leads = range(num_singles, num_singles + 1024)
    trails = range(leads.stop, leads.stop + 1088)
    return ReferencePairs(
        dict(enumerate(values[:num_singles])), values[num_singles:], leads, trails, range(trails.stop, 65536)
    )


class ReferenceUtf32(ReferenceCoder):
    """Four bytes a value, big-endian; the 8 controls follow U+10FFFF. What is left over at the end is one piece."""

    def word(self, value: int) -> bytes:
        """The value itself."""
        return value.to_bytes(4, "big")

    def piece(self, data: bytes) -> tuple[int, int]:
        """A unit."""
        unit = int.from_bytes(data[:4], "big")
        if len(data) < 4 or unit >= 0x110008 or (0xD800 <= unit < 0xE000 and unit not in ESCAPES):
            return INVALID, min(4, len(data))
        return (unit if unit < 0x110000 else 0x110000 - 1 - unit), 4


class ReferenceUtf8(ReferenceCoder):
    """Python's own codec, asked about every possible piece; F8..FF are controls, and escaped bytes are surrogates.

    A malformed piece is the longest beginning of a word, or one byte (Unicode 15, section 3.9, maximal subpart).
    """

    def word(self, value: int) -> bytes:
        """By the codec."""
        return chr(value).encode("utf-8", "surrogatepass")

    def piece(self, data: bytes) -> tuple[int, int]:
        """The shortest word or the longest beginning of one."""
        if data[0] >= 0xF8:
            return 0xF8 - 1 - data[0], 1
        for length in range(1, min(4, len(data)) + 1):
            value = self._value(data[:length])
            if value is not None:
                return value, length
            if not self._begins(data[:length]):
                return INVALID, max(length - 1, 1)
        return INVALID, len(data)

    def _value(self, data: bytes) -> int | None:
        try:
            value = ord(data.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            return None
        return value if value in ESCAPES or not 0xD800 <= value < 0xE000 else None

    def _begins(self, data: bytes) -> bool:
        if data in (b"\xed\xb2", b"\xed\xb3"):
            return True
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            return error.start == 0 and error.reason == "unexpected end of data"
        return False


@functools.cache
def reference_coder(encoding: Encoding) -> ReferenceCoder:
    """The slow coder of the same family; it takes only the parameters of the table from ``encoding``.

    Raises:
        EncodingError: the family is not known here.
    """
    match encoding:
        case DenseEncoding():
            return ReferenceDense(encoding.s, encoding.c, encoding.ranked)
        case Ranked2Encoding():
            return ranked2(encoding.ranked, len(encoding.controls))
    match encoding.family:
        case "utf8":
            return ReferenceUtf8()
        case "utf16":
            return utf16()
        case "utf32":
            return ReferenceUtf32()
    raise EncodingError(f"family: found {encoding.family!r}, expected one of the package")

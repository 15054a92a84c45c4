"""UTF-8, with the bytes that never occur in it as controls."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.base import INVALID, Encoding
from bytelm.encoding.convert import ESCAPES, NUM_CODE_POINTS, ByteData, all_values, as_bytes, code_points_of

_FIRST_CONTROL = 0xF8
_ESCAPE_LEAD = 0xE0 | ESCAPES.start >> 12
_ESCAPE_SECOND = 0x80 | ESCAPES.start >> 6 & 0x3F  # the other 64 escapes have the next one

# Well-formed UTF-8 (Unicode 15, table 3-7): first bytes, length, range of the second byte, with the reason for a
# narrowed range. Every later byte is 80..BF.
_LEADS = (
    (0x00, 0x7F, 1, 0x00, 0x00),
    (0xC2, 0xDF, 2, 0x80, 0xBF),
    (0xE0, 0xE0, 3, 0xA0, 0xBF),  # below A0: overlong
    (0xE1, 0xEC, 3, 0x80, 0xBF),
    (0xED, 0xED, 3, 0x80, 0x9F),  # above 9F: surrogates
    (0xEE, 0xEF, 3, 0x80, 0xBF),
    (0xF0, 0xF0, 4, 0x90, 0xBF),  # below 90: overlong
    (0xF1, 0xF3, 4, 0x80, 0xBF),
    (0xF4, 0xF4, 4, 0x80, 0x8F),  # above 8F: beyond U+10FFFF
)


def _lead_tables() -> NDArray[np.uint8]:
    """uint8[3, 256]: word length, lowest and highest second byte, by first byte; length 0: no word begins so."""
    tables = np.zeros((3, 256), dtype=np.uint8)
    for first, last, length, low, high in _LEADS:
        tables[:, first : last + 1] = np.array([[length], [low], [high]])
    return tables


_LENGTH, _LOW, _HIGH = _lead_tables()


class Utf8Encoding(Encoding):
    """UTF-8; controls are the bytes F8..FF, and an escaped byte b is U+DC00 + b by the scheme of all code points of
    three bytes: ED B2 80..ED B3 BF, which well-formed UTF-8 does not hold.

    A malformed piece is a *maximal subpart* in the sense of Unicode 15, section 3.9 (the longest prefix of a
    well-formed word, or a single byte), so ``errors="replace"`` is what ``bytes.decode("utf-8", "replace")`` does on
    anything but ED B2 and ED B3, where an escaped byte begins here; a control is one U+FFFD.
    """

    family = "utf8"

    def __init__(self) -> None:
        words, lengths = _words()
        super().__init__("utf8", 1, words, lengths, [bytes([_FIRST_CONTROL + k]) for k in range(8)])

    def encode(  # noqa: D102 - inherited
        self, text: str, errors: Literal["strict", "surrogateescape"] = "strict"
    ) -> NDArray[np.uint8]:
        if errors == "strict":
            try:
                return np.frombuffer(bytearray(text, "utf-8"), dtype=np.uint8)
            except UnicodeEncodeError:
                pass  # the table says where
        return super().encode(text, errors)

    def _decode_characters(self, array: NDArray[np.uint8]) -> str | None:
        try:
            return str(np.ascontiguousarray(array).data, "utf-8")
        except UnicodeDecodeError:  # malformed or holding controls: parse knows which, and where
            return None

    def parse(self, data: ByteData) -> tuple[NDArray[np.int32], NDArray[np.int64]]:  # noqa: D102 - inherited
        array = as_bytes(data)
        pieces = _parse_well_formed(array)
        return _parse_any(array) if pieces is None else pieces

    def _unfinished(self, data: NDArray[np.uint8]) -> int:
        tail = data[-3:]
        for size in range(1, len(tail) + 1):
            if tail[-size] & 0xC0 != 0x80:
                held = len(self.parse(tail[-size:])[1]) == 1 and size < _LENGTH[tail[-size]]
                return size if held else 0
        return 0


def _parse_well_formed(array: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    """The pieces by Python's own decoder, several times faster; None if there is a malformed one.

    A control becomes an ASCII byte for the decoder: both are words of one byte and never part of another word.
    """
    control = array >= _FIRST_CONTROL
    try:
        text = np.where(control, np.uint8(0), array).tobytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    values = code_points_of(text).astype(np.int32)
    starts = np.flatnonzero((array & 0xC0) != 0x80)
    if control.any():
        index = np.flatnonzero(control[starts])
        values[index] = _FIRST_CONTROL - 1 - array[starts[index]].astype(np.int32)
    return values, starts.astype(np.int64, copy=False)


def _parse_any(array: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The pieces of any bytes by the table of well-formed words."""
    size = len(array)
    padded = np.concatenate([array, np.zeros(3, np.uint8)])
    trail = (padded & 0xC0) == 0x80
    second = padded[1 : size + 1]
    # has[k]: bytes 1..k of the maximal subpart that would begin at each offset are there.
    need = _LENGTH[array]
    escape = (array == _ESCAPE_LEAD) & ((second == _ESCAPE_SECOND) | (second == _ESCAPE_SECOND + 1))
    has_1 = (need >= 2) & (second >= _LOW[array]) & (second <= _HIGH[array]) | escape
    has_2 = (need >= 3) & has_1 & trail[2 : size + 2]
    has_3 = (need == 4) & has_2 & trail[3 : size + 3]
    inside = np.zeros(size + 3, dtype=np.bool_)
    inside[1 : size + 1] |= has_1
    inside[2 : size + 2] |= has_2
    inside[3 : size + 3] |= has_3
    starts = np.flatnonzero(~inside[:size])

    first, need = array[starts].astype(np.int32), need[starts]
    length = 1 + has_1[starts].astype(np.int32) + has_2[starts] + has_3[starts]
    values = first & np.array([0, 0x7F, 0x1F, 0x0F, 0x07], dtype=np.int32)[need]
    for k in range(1, 4):
        values = np.where(length > k, (values << 6) | (padded[starts + k] & 0x3F), values)
    values[length != need] = INVALID
    control = first >= _FIRST_CONTROL
    values[control] = _FIRST_CONTROL - 1 - first[control]
    return values.astype(np.int32, copy=False), starts.astype(np.int64, copy=False)


def _words() -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Code words (left-aligned) and lengths of all values, by the definition of UTF-8."""
    values = all_values()
    words = np.zeros(NUM_CODE_POINTS, dtype=np.uint32)
    lengths = np.zeros(NUM_CODE_POINTS, dtype=np.uint8)
    length = 1 + np.searchsorted([0x80, 0x800, 0x10000], values, side="right")
    trailing = [0x80 | (values >> (6 * k)) & 0x3F for k in range(3)]
    forms = [
        values << 24,
        (0xC0 | values >> 6) << 24 | trailing[0] << 16,
        (0xE0 | values >> 12) << 24 | trailing[1] << 16 | trailing[0] << 8,
        (0xF0 | values >> 18) << 24 | trailing[2] << 16 | trailing[1] << 8 | trailing[0],
    ]
    words[values] = np.choose(length - 1, forms)
    lengths[values] = length
    return words, lengths

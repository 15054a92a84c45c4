"""The characters by which byte-level BPE files write bytes, and UTF-8 that may be cut anywhere."""

import codecs
from typing import Final, Literal

from bytelm.errors import EncodingError


def _byte_characters() -> str:
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    return "".join(chr(byte) if byte in own else chr(0x100 + others.index(byte)) for byte in range(256))


BYTE_CHARACTERS: Final = _byte_characters()
"""The character of each byte in GPT-2's vocabulary (Radford et al. 2019, ``encoder.py`` of their code): bytes 33-126,
161-172 and 174-255 are the characters of that number; the other 68, in order, are U+0100 and following."""

_TO_LATIN_1 = {ord(character): byte for byte, character in enumerate(BYTE_CHARACTERS)}
_KNOWN = frozenset(BYTE_CHARACTERS)


def bytes_of_token(token: str) -> bytes | None:
    """The bytes that ``token`` writes; None if it holds a character that is no byte's."""
    if not _KNOWN.issuperset(token):
        return None
    return token.translate(_TO_LATIN_1).encode("latin-1")


def decode_utf8(
    data: bytes, errors: Literal["strict", "replace"], *, offset: int = 0, final: bool = True
) -> tuple[str, int]:
    """The text of ``data`` and how many of its bytes that took.

    Unless ``final``, bytes at the end that later ones can make a character are not taken: at most three. With
    ``errors="replace"`` each maximal subpart (Unicode 15, section 3.9) that is no character becomes one U+FFFD.

    Raises:
        EncodingError: with ``errors="strict"``, at the first malformed piece: its position plus ``offset``, its bytes
            and the reason.
    """
    try:
        text, taken = codecs.utf_8_decode(data, errors, final)
        if data[taken : taken + 1] == b"\xed" and data[taken + 1 :] >= b"\xa0":
            # Half of a surrogate: Python waits for a third byte, though none can make a character of these two.
            return codecs.utf_8_decode(data, errors, True)
        return text, taken
    except UnicodeDecodeError as error:
        found = data[error.start : error.end].hex(" ")
        reason = "an unfinished character" if "unexpected end" in error.reason else "not the beginning of a character"
        raise EncodingError(
            f"byte offset {offset + error.start}: found {found}, {reason}; expected UTF-8 (or errors='replace')"
        ) from None

"""Encodings with one bug each, most of them seen in the wild: what the kit of encodings must fail, and by which checks.

======================  ====================================================  ==============================
bug                     what is wrong                                         checks that must fail
======================  ====================================================  ==============================
Ucs2                    keeps 16 bits of a character (UCS-2)                  round trip
Normalises              puts text into NFC first (tokenizers)                 round trip
DropsMark               takes U+FEFF at the beginning for a signature         round trip
EndsAtNull              ends at U+0000 (C strings)                            round trip, canonical
BareEscape              has an escape and does not escape it                  prefix-free
ChainedBytes            each byte depends on the one before                   concatenation, streaming
Overlong                takes longer forms of UTF-8 (CVE-2000-0884)           canonical
TakesSurrogates         decodes halves of pairs (CESU-8, WTF-8)               canonical
LeavesOut               leaves out what it cannot read                        canonical, controls
WritesControls          a text may write controls (prompt injection)          round trip, controls
ReadsControls           decodes controls to their names                       canonical, controls
CountsCharacters        says at which character an error is, not byte         error positions
SaysTheEnd              says where the bad piece ends                         error positions
TakesAnything           encodes lone surrogates as a question mark            error positions, escapes
NoReplacement           raises on a cut word, whatever the mode               replacement
SilentReplacement       puts nothing in the place of what it cannot read      replacement
PiecesAlone             decodes each piece of a stream by itself              streaming
HoldsBack               shows nothing before the end of a stream              streaming
ForgetsTail             forgets an unfinished word at the end of a stream     streaming
PaddedBatch             pads the rows of a batch to one length                batch
CutsAnywhere            says that every place is a boundary                   boundaries
LosesFiles              writes question marks for escaped bytes               escapes
WideMask                its automaton lets more through than decodes          automaton
======================  ====================================================  ==============================
"""

import itertools
import unicodedata
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from bytelm.encoding import Automaton, Errors, get_encoding
from bytelm.encoding.convert import ByteData
from bytelm.errors import EncodingError


class Plain:
    """``utf8`` of this package with everything that the kit checks, and no bug; the bugs override a method or two."""

    def __init__(self) -> None:
        self.inner = get_encoding("utf8")
        self.controls = self.inner.controls

    def encode(self, text: str, errors: Any = "strict") -> bytes:
        """The bytes of a text."""
        return self.inner.encode(text, errors).tobytes()

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """The text of bytes."""
        return self.inner.decode(data, errors)

    def decoder(self, errors: Errors = "strict") -> Any:
        """Decodes a stream."""
        return self.inner.decoder(errors)

    def encode_batch(self, texts: Sequence[str]) -> list[bytes]:
        """Rows of bytes."""
        return [self.encode(text) for text in texts]

    def decode_batch(self, rows: Sequence[bytes]) -> list[str]:
        """Rows of text."""
        return [self.decode(row) for row in rows]

    def complete(self, data: ByteData) -> int:
        """Where it may be cut."""
        return self.inner.complete(data)

    def char_starts(self, data: ByteData) -> Any:
        """Where characters begin."""
        return self.inner.char_starts(data)

    def automaton(self) -> Automaton:
        """What may follow what."""
        return self.inner.automaton()


class Ucs2(Plain):
    """Characters beyond U+FFFF lose their upper bits."""

    def encode(self, text: str, errors: Any = "strict") -> bytes:
        """Of what is left."""
        return super().encode("".join(chr(ord(character) & 0xFFFF) for character in text), errors)


class Normalises(Plain):
    """Composes characters."""

    def encode(self, text: str, errors: Any = "strict") -> bytes:
        """Of another text with the same meaning."""
        return super().encode(unicodedata.normalize("NFC", text), errors)


class DropsMark(Plain):
    """Drops a byte order mark, which may be a character."""

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """Without it."""
        return super().decode(data, errors).removeprefix("\ufeff")


class EndsAtNull(Plain):
    """Takes a character for the end."""

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """Up to it."""
        return super().decode(data, errors).partition("\0")[0]


class BareEscape(Plain):
    """ASCII as it is; everything else is ESC and four bytes, and so is nothing of ASCII, ESC included."""

    def encode(self, text: str, errors: Any = "strict") -> bytes:
        """One word after another."""
        super().encode(text, errors)
        return b"".join(c.encode() if c.isascii() else b"\x1b" + ord(c).to_bytes(4, "big") for c in text)

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """ESC and four bytes that are a character are one."""
        text, at = "", 0
        while at < len(data):
            value = int.from_bytes(data[at + 1 : at + 5], "big")
            escaped = data[at] == 0x1B and at + 4 < len(data) and 0x80 <= value < 0x110000
            text += chr(value) if escaped else chr(data[at])
            at += 5 if escaped else 1
        return text


class ChainedBytes(Plain):
    """Each byte is added to the one before it."""

    def encode(self, text: str, errors: Any = "strict") -> bytes:
        """Running sums, modulo 256."""
        return bytes(total % 256 for total in itertools.accumulate(super().encode(text, errors)))

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """Of the differences."""
        return super().decode(bytes((b - a) % 256 for a, b in itertools.pairwise([0, *data])), errors)


class Overlong(Plain):
    """Takes C0 and C1, by which the first 128 characters have a second form, which a filter does not look for."""

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """Of the short forms."""
        short = bytearray()
        for byte in bytes(data):
            if short and short[-1] in (0xC0, 0xC1) and 0x80 <= byte < 0xC0:
                short[-1] = (short[-1] & 1) << 6 | byte & 0x3F
            else:
                short.append(byte)
        return super().decode(bytes(short), errors)


class TakesSurrogates(Plain):
    """Decodes what is no scalar value."""

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """By Python's codec, in a mode that is not meant for reading."""
        return bytes(data).decode("utf-8", "surrogatepass") if errors == "strict" else super().decode(data, errors)


class LeavesOut(Plain):
    """Two different byte strings give the same text, and nobody is told."""

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """Without what is malformed."""
        return bytes(data).decode("utf-8", "ignore") if errors == "strict" else super().decode(data, errors)


class WritesControls(Plain):
    """A user writes ``<|eos|>``, and the model reads the end of the text."""

    def encode(self, text: str, errors: Any = "strict") -> bytes:
        """With the words of controls for their names."""
        data = super().encode(text, errors)
        for name, word in self.controls.items():
            data = data.replace(name.encode(), word)
        return data


class ReadsControls(Plain):
    """What a model ends with is read as a text that a user wrote."""

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """With the names of controls for their words."""
        data = bytes(data)
        for name, word in self.controls.items():
            data = data.replace(word, name.encode())
        return super().decode(data, errors)


class CountsCharacters(Plain):
    """Right in tests in English."""

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """With the place in characters."""
        try:
            return super().decode(data, errors)
        except EncodingError as error:
            at = int(str(error).split()[2].rstrip(":"))
            raise EncodingError(f"byte offset {len(super().decode(data[:at]))}: no character") from None


class SaysTheEnd(Plain):
    """Says where reading stopped, not where the piece begins that cannot be read."""

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """With a place that is too late."""
        try:
            return super().decode(data, errors)
        except EncodingError as error:
            raise EncodingError(f"byte offset {int(str(error).split()[2].rstrip(':')) + 1}: no character") from None


class TakesAnything(Plain):
    """Never refuses a text, and loses what is none."""

    def encode(self, text: str, errors: Any = "strict") -> bytes:
        """Lone surrogates as question marks."""
        return text.encode("utf-8", "replace") if errors == "strict" else super().encode(text, errors)


class NoReplacement(Plain):
    """The mode is forgotten where the data end in the middle of a word."""

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """Strict about the end."""
        end = self.complete(data)
        return super().decode(data[:end], errors) + super().decode(data[end:])


class SilentReplacement(Plain):
    """Nothing shows that something is missing."""

    def decode(self, data: bytes, errors: Errors = "strict") -> str:
        """Without U+FFFD."""
        text = super().decode(data, errors)
        return text.replace("\ufffd", "") if errors == "replace" else text


class _Stream:
    """A stream of a coder: what came, and what is done with a piece and at the end."""

    def __init__(self, coder: Plain, errors: Errors) -> None:
        self.coder, self.errors, self.held = coder, errors, b""

    def decode(self, data: bytes = b"", *, final: bool = False) -> str:
        """The piece by itself."""
        return self.coder.decode(data, self.errors)


class PiecesAlone(Plain):
    """Half a character at the end of a piece is no character (what chats show while they stream)."""

    def decoder(self, errors: Errors = "strict") -> Any:
        """Without a memory."""
        return _Stream(self, errors)


class _Late(_Stream):
    def decode(self, data: bytes = b"", *, final: bool = False) -> str:
        self.held += data
        return self.coder.decode(self.held, self.errors) if final else ""


class HoldsBack(Plain):
    """A reader waits for all of it."""

    def decoder(self, errors: Errors = "strict") -> Any:
        """All at the end."""
        return _Late(self, errors)


class _Forgetful(_Stream):
    def decode(self, data: bytes = b"", *, final: bool = False) -> str:
        whole = self.held + data
        end = self.coder.complete(whole)
        self.held = b"" if final else whole[end:]
        return self.coder.decode(whole[:end], self.errors)


class ForgetsTail(Plain):
    """A text that was cut looks whole."""

    def decoder(self, errors: Errors = "strict") -> Any:
        """Without the last word where that is unfinished."""
        return _Forgetful(self, errors)


class PaddedBatch(Plain):
    """Rows as a matrix, whose padding is text."""

    def encode_batch(self, texts: Sequence[str]) -> list[bytes]:
        """As long as the longest."""
        rows = super().encode_batch(texts)
        return [row.ljust(max(map(len, rows)), b"\0") for row in rows]


class CutsAnywhere(Plain):
    """A block of a file ends in the middle of a character."""

    def complete(self, data: ByteData) -> int:
        """All of it."""
        return len(bytes(data))


class LosesFiles(Plain):
    """A file that is no text comes back changed."""

    def encode(self, text: str, errors: Any = "strict") -> bytes:
        """Escaped bytes as question marks."""
        return text.encode("utf-8", "replace") if errors == "surrogateescape" else super().encode(text, errors)


class WideMask(Plain):
    """A model under its mask writes what is no text."""

    def automaton(self) -> Automaton:
        """With the words of escaped bytes."""
        return self.inner.automaton(escapes=True)


class EncodingBug(NamedTuple):
    """A wrong encoding and the checks that must fail on it."""

    coder: type[Plain]
    checks: tuple[str, ...]


ENCODING_BUGS: Final = (
    EncodingBug(Ucs2, ("round trip",)),
    EncodingBug(Normalises, ("round trip",)),
    EncodingBug(DropsMark, ("round trip",)),
    EncodingBug(EndsAtNull, ("round trip", "canonical")),
    EncodingBug(BareEscape, ("prefix-free",)),
    EncodingBug(ChainedBytes, ("concatenation", "streaming")),
    EncodingBug(Overlong, ("canonical",)),
    EncodingBug(TakesSurrogates, ("canonical",)),
    EncodingBug(LeavesOut, ("canonical", "controls")),
    EncodingBug(WritesControls, ("round trip", "controls")),
    EncodingBug(ReadsControls, ("canonical", "controls")),
    EncodingBug(CountsCharacters, ("error positions",)),
    EncodingBug(SaysTheEnd, ("error positions",)),
    EncodingBug(TakesAnything, ("error positions", "escapes")),
    EncodingBug(NoReplacement, ("replacement",)),
    EncodingBug(SilentReplacement, ("replacement",)),
    EncodingBug(PiecesAlone, ("streaming",)),
    EncodingBug(HoldsBack, ("streaming",)),
    EncodingBug(ForgetsTail, ("streaming",)),
    EncodingBug(PaddedBatch, ("batch",)),
    EncodingBug(CutsAnywhere, ("boundaries",)),
    EncodingBug(LosesFiles, ("escapes",)),
    EncodingBug(WideMask, ("automaton",)),
)
"""Every one is ``Plain`` but for what its docstring says."""

"""A text seen through encodings: the bytes of each character, what each byte is, and the patch it falls in."""

import dataclasses
import unicodedata
from collections.abc import Sequence
from html import escape
from typing import Any

from bytelm.encoding.base import Encoding
from bytelm.encoding.dense import DenseEncoding
from bytelm.encoding.registry import get_encoding
from bytelm.errors import ConfigError, EncodingError

DEFAULT_ENCODINGS = ("dense-ja", "utf8", "utf16")

_PATCH_COLOURS = ("66, 133, 244", "251, 140, 0", "46, 160, 90", "171, 71, 188")
_HEX_STYLE = "font-family:monospace;padding:1px 3px;border-left:2px solid "
_CELL_STYLE = "text-align:left;vertical-align:top;padding:2px 8px;white-space:nowrap"


@dataclasses.dataclass(frozen=True)
class CodedCharacter:
    """One character in one encoding.

    Attributes:
        character: a string of one scalar value.
        word: its code word.
        start: the offset of the word in the encoded text, in bytes.
        classes: what each byte of the word is, by :func:`byte_classes`.
    """

    character: str
    word: bytes
    start: int
    classes: tuple[str, ...]


def byte_classes(encoding: Encoding, word: bytes) -> tuple[str, ...]:
    """What each byte of the code word of a character is, by the family of the encoding.

    utf8: ``ascii``, ``lead``, ``trail``. utf16: ``unit``, ``high surrogate``, ``low surrogate``, for both bytes of a
    unit. ranked2: ``unit``, ``lead unit``, ``trail unit``. utf32: ``unit``. dense: ``continuer``, ``stopper``. Any
    other family: ``single``, or ``first``, ``inner`` and ``last``.
    """
    match encoding.family:
        case "utf8":
            return ("ascii",) if len(word) == 1 else ("lead", *["trail"] * (len(word) - 1))
        case "utf16":
            return ("unit",) * 2 if len(word) == 2 else ("high surrogate",) * 2 + ("low surrogate",) * 2
        case "ranked2":
            return ("unit",) * 2 if len(word) == 2 else ("lead unit",) * 2 + ("trail unit",) * 2
        case "utf32":
            return ("unit",) * 4
        case "dense":
            assert isinstance(encoding, DenseEncoding)
            return tuple("stopper" if byte < encoding.s else "continuer" for byte in word)
        case _:
            return ("single",) if len(word) == 1 else ("first", *["inner"] * (len(word) - 2), "last")


class EncodingView:
    """A text, character by character, in one or more encodings. ``str`` gives a table, a notebook shows it as HTML.

    Args:
        text: what to encode.
        encodings: encodings, or names of encodings.
        patch: bytes per patch of the model.

    Attributes:
        coded: the characters of the text in each encoding, in the order of ``encodings``.

    Raises:
        EncodingError: a lone surrogate in ``text``, an unknown name, or no encoding at all.
        ConfigError: ``patch`` is less than 1.
    """

    def __init__(self, text: str, encodings: Sequence[str | Encoding] = DEFAULT_ENCODINGS, patch: int = 4) -> None:
        if patch < 1:
            raise ConfigError(f"patch: found {patch}, expected at least 1")
        if isinstance(encodings, str):
            encodings = [encodings]
        if not encodings:
            raise EncodingError("encodings: found none, expected at least one")
        self.text = text
        self.patch = patch
        self.encodings = [get_encoding(chosen) if isinstance(chosen, str) else chosen for chosen in encodings]
        self.coded = [_code(encoding, text) for encoding in self.encodings]

    def describe(self) -> list[dict[str, Any]]:
        """For each encoding its name, digest, characters, patches and size, JSON-serialisable; bytes are in hex."""
        return [
            {
                "encoding": encoding.name,
                "digest": encoding.digest,
                "characters": [self._describe(coded) for coded in line],
                "patches": self._patches(line),
                "bytes": _num_bytes(line),
                "bytes_per_character": _num_bytes(line) / len(self.text) if self.text else None,
            }
            for encoding, line in zip(self.encodings, self.coded, strict=True)
        ]

    def __str__(self) -> str:
        header = ["", "scalar"]
        for encoding in self.encodings:
            header += [f" {encoding.name}", "", "patch"]
        rows = []
        for line in zip(*self.coded, strict=True):
            character = line[0].character
            row = [_printable(character), f"U+{ord(character):04X}"]
            for coded in line:
                row += [self._hex(coded), _letters(coded.classes), self._patch_range(coded)]
            rows.append([*row, unicodedata.name(character, "")])
        table = _align([[*header, "name"], *rows])
        return "\n".join([*table, *self._legend(), *self._totals()])

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th style="{_CELL_STYLE}">{escape(title)}</th>'
            for title in ("", "scalar", *(encoding.name for encoding in self.encodings), "name")
        )
        rows = []
        for line in zip(*self.coded, strict=True):
            character = line[0].character
            cells = [
                f'<bdi style="font-size:130%">{escape(_printable(character))}</bdi>',
                f"<code>U+{ord(character):04X}</code>",
                *("".join(self._html_byte(coded, i) for i in range(len(coded.word))) for coded in line),
                f"<small>{escape(unicodedata.name(character, ''))}</small>",
            ]
            rows.append("<tr>" + "".join(f'<td style="{_CELL_STYLE}">{cell}</td>' for cell in cells) + "</tr>")
        notes = "<br>".join(escape(note) for note in [*self._legend(), *self._totals()])
        return (
            f'<div style="overflow-x:auto"><table style="border-collapse:collapse"><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table><small>{notes}</small></div>"
        )

    def _describe(self, coded: CodedCharacter) -> dict[str, Any]:
        return {
            "character": coded.character,
            "scalar": ord(coded.character),
            "name": unicodedata.name(coded.character, ""),
            "word": coded.word.hex(),
            "start": coded.start,
            "classes": list(coded.classes),
            "first_patch": coded.start // self.patch,
            "last_patch": (coded.start + len(coded.word) - 1) // self.patch,
        }

    def _patches(self, line: Sequence[CodedCharacter]) -> list[str]:
        data = b"".join(coded.word for coded in line)
        return [data[i : i + self.patch].hex() for i in range(0, len(data), self.patch)]

    def _hex(self, coded: CodedCharacter) -> str:
        """The bytes of a word; ``|`` stands before the first byte of a patch."""
        marked = enumerate(coded.word, coded.start)
        return "".join(f"{' ' if offset % self.patch else '|'}{byte:02x}" for offset, byte in marked)

    def _patch_range(self, coded: CodedCharacter) -> str:
        first, last = coded.start // self.patch, (coded.start + len(coded.word) - 1) // self.patch
        return str(first) if first == last else f"{first}-{last}"

    def _html_byte(self, coded: CodedCharacter, i: int) -> str:
        number, inside = divmod(coded.start + i, self.patch)
        colour = _PATCH_COLOURS[number % len(_PATCH_COLOURS)]
        style = f"{_HEX_STYLE}{'transparent' if inside else 'currentColor'};background:rgba({colour}, 0.28)"
        title = f"{coded.classes[i]}, byte {coded.start + i}, patch {number}"
        shown = f"{coded.word[i]:02x}<sub>{coded.classes[i][0].upper()}</sub>"
        return f'<span title="{title}" style="{style}">{shown}</span>'

    def _legend(self) -> list[str]:
        notes = []
        for encoding, line in zip(self.encodings, self.coded, strict=True):
            found = dict.fromkeys(name for coded in line for name in coded.classes)
            if found:
                notes.append(f"{encoding.name} {', '.join(f'{name[0].upper()} {name}' for name in found)}")
        return [f"| begins a patch; {'; '.join(notes)}"] if notes else []

    def _totals(self) -> list[str]:
        totals = []
        for encoding, line in zip(self.encodings, self.coded, strict=True):
            size = _num_bytes(line)
            ratio = f", {size / len(self.text):.3f} bytes/char" if self.text else ""
            totals.append(
                f"{encoding.name}: {len(self.text)} characters, {size} bytes, "
                f"{-(-size // self.patch)} patches of {self.patch}{ratio}"
            )
        return totals


def _code(encoding: Encoding, text: str) -> list[CodedCharacter]:
    data = encoding.encode(text)
    starts = encoding.parse(data)[1].tolist()
    words = [data[start:end].tobytes() for start, end in zip(starts, [*starts, len(data)][1:], strict=True)]
    return [
        CodedCharacter(character, word, start, byte_classes(encoding, word))
        for character, word, start in zip(text, words, starts, strict=True)
    ]


def _num_bytes(line: Sequence[CodedCharacter]) -> int:
    return sum(len(coded.word) for coded in line)


def _letters(classes: Sequence[str]) -> str:
    return "".join(name[0].upper() for name in classes)


def _printable(character: str) -> str:
    """The character; an escape or a dot where it shows nothing; on a dotted circle where it joins the one before."""
    if not character.isprintable():
        shown = repr(character)[1:-1]
        return shown if len(shown) == 2 else "·"
    return f"◌{character}" if unicodedata.category(character).startswith("M") else character


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their width on a terminal, where an ideograph or an emoji takes two cells."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]

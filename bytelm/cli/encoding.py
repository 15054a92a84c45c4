"""``bytelm encoding list | show``; ``fit`` and ``check`` are registered here as well."""

import unicodedata
from typing import Annotated, Any

import typer

from bytelm.cli.arguments import EncodingName, Json, check_text, resolve_encoding
from bytelm.cli.console import format_table, write_result
from bytelm.cli.encoding_check import check
from bytelm.cli.encoding_fit import fit
from bytelm.encoding import Encoding, get_encoding, list_encodings
from bytelm.errors import EncodingError

encoding = typer.Typer(name="encoding", help="Maps from text to bytes.")
encoding.command()(fit)
encoding.command()(check)

_SAMPLE = "朝の市場で、魚と野菜とおいしいパンを買った。代金は3,200円、袋は my bag に入れた。"


@encoding.command("list")
def list_command(
    sample: Annotated[str, typer.Option("--sample", metavar="TEXT", help="Text to measure on.")] = _SAMPLE,
    json: Json = False,
) -> None:
    """The encodings by name, with what they make of a sample.

    JSON fields: command, sample, encodings (of each: name, digest, unit, max_word, controls, bytes_per_character).
    """
    check_text(sample, "--sample")
    if not sample:
        raise EncodingError("--sample: found an empty text, expected at least one character")
    found = [_summary(get_encoding(name), sample) for name in list_encodings()]
    header = ("name", "digest", "longest word", "bytes/char", "controls")
    rows = [
        (
            entry["name"],
            entry["digest"][:12],
            str(entry["max_word"]),
            f"{entry['bytes_per_character']:.3f}",
            " ".join(f"{name}={word}" for name, word in entry["controls"].items()),
        )
        for entry in found
    ]
    text = format_table(header, rows, "llrrl") + f"\nbytes/char of the sample: {sample}"
    write_result({"command": "encoding list", "sample": sample, "encodings": found}, text, json)


def _summary(encoding: Encoding, sample: str) -> dict[str, Any]:
    return {
        "name": encoding.name,
        "digest": encoding.digest,
        "unit": encoding.unit,
        "max_word": encoding.max_word,
        "controls": {name: word.hex() for name, word in encoding.controls.items()},
        "bytes_per_character": len(encoding.encode(sample)) / len(sample),
    }


@encoding.command()
def show(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Text to encode.", show_default=False)],
    name: EncodingName = "dense-ja",
    patch: Annotated[int, typer.Option("--patch", metavar="P", min=1, help="Bytes per patch of the model.")] = 4,
    json: Json = False,
) -> None:
    """Each character of TEXT with its scalar value and code word, and where patches begin (a bar in the code word).

    JSON fields: command, encoding, digest, text, characters (of each: character, scalar, word, start), patches, bytes,
    bytes_per_character.
    """
    check_text(text, "TEXT")
    chosen = resolve_encoding(name)
    data = chosen.encode(text)
    starts = chosen.parse(data)[1].tolist()
    ends = [*starts, len(data)][1:]
    words = [data[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]
    characters = [
        {"character": character, "scalar": ord(character), "word": word.hex(), "start": start}
        for character, word, start in zip(text, words, starts, strict=True)
    ]
    patches = [data[i : i + patch].tobytes().hex() for i in range(0, len(data), patch)]
    result = {
        "command": "encoding show",
        "encoding": chosen.name,
        "digest": chosen.digest,
        "text": text,
        "characters": characters,
        "patches": patches,
        "bytes": len(data),
        "bytes_per_character": len(data) / len(text) if text else None,
    }
    rows = [
        (_printable(c), f"U+{ord(c):04X}", _barred(word, start, patch), str(start), str(start // patch), _name(c))
        for c, word, start in zip(text, words, starts, strict=True)
    ]
    table = format_table(("", "scalar", "code word", "byte", "patch", "name"), rows, "lllrrl")
    ratio = f", {len(data) / len(text):.3f} bytes/char" if text else ""
    total = f"{chosen.name}: {len(text)} characters, {len(data)} bytes, {len(patches)} patches of {patch}{ratio}"
    write_result(result, f"{table}\n{total}", json)


def _printable(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def _name(character: str) -> str:
    return unicodedata.name(character, "")


def _barred(word: bytes, start: int, patch: int) -> str:
    """The bytes of a word in hex; ``|`` stands before the first byte of a patch."""
    return "".join(f"{'|' if (start + i) % patch == 0 else ' '}{byte:02x}" for i, byte in enumerate(word))

"""``bytelm encoding check``."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from bytelm.cli.arguments import Json
from bytelm.cli.console import working, write_result
from bytelm.encoding import Encoding, get_encoding, list_encodings, prove, read_table


def check(
    name: Annotated[
        str,
        typer.Argument(metavar="FILE_OR_NAME", help="A table (.json), or the name of an encoding.", show_default=False),
    ],
    json: Json = False,
) -> None:
    """Prove an encoding by trying everything: all scalar values, all words and controls, and the digest.

    JSON fields: command, encoding, family, digest, scalars, escapes, words, controls, longest_word.
    """
    encoding, table = _find(name)
    with working("proving"):
        proof = prove(encoding, table)
    words = dict(enumerate(proof.words_by_length, 1))
    result = {
        "command": "encoding check",
        "encoding": encoding.name,
        "family": encoding.family,
        "digest": proof.digest,
        "scalars": proof.scalars,
        "escapes": proof.escapes,
        "words": {str(length): number for length, number in words.items()},
        "controls": proof.controls,
        "longest_word": encoding.max_word,
    }
    lengths = ", ".join(f"{number:,} of {length}" for length, number in words.items() if number)
    text = (
        f"{encoding.name} ({encoding.family}): proved\n"
        f"  all {proof.scalars:,} scalar values and {proof.escapes} escaped bytes come back from their words\n"
        f"  their words (bytes: {lengths}) are distinct, and none begins another\n"
        f"  the words of the {proof.controls} controls begin none of them, and none of them begins one\n"
        f"  the digest is that of the table: {proof.digest}"
    )
    write_result(result, text, json)


def _find(name: str) -> tuple[Encoding, dict[str, Any] | None]:
    """The encoding, and the table it was read from if that is a file."""
    path = Path(name)
    if name in list_encodings() or (path.suffix != ".json" and not path.is_file()):
        return get_encoding(name), None
    encoding = read_table(path)
    return encoding, json_module.loads(path.read_text(encoding="utf-8"))

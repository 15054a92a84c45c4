"""``bytelm encoding list``; the other commands of the group are registered here."""

from typing import Annotated, Any

import typer

from bytelm.cli.arguments import Json, check_text
from bytelm.cli.console import format_table, write_result
from bytelm.cli.encoding_bench import bench
from bytelm.cli.encoding_check import check
from bytelm.cli.encoding_compare import compare
from bytelm.cli.encoding_fit import fit
from bytelm.cli.encoding_show import show
from bytelm.encoding import Encoding, get_encoding, list_encodings
from bytelm.errors import EncodingError

encoding = typer.Typer(name="encoding", help="Maps from text to bytes.")
for command in (show, fit, check, compare, bench):
    encoding.command()(command)

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

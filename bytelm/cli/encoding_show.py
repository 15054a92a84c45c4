"""``bytelm encoding show``."""

from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.arguments import Json, check_text, resolve_encoding
from bytelm.cli.console import write_result
from bytelm.encoding.view import DEFAULT_ENCODINGS, EncodingView


def show(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Text to encode.", show_default=False)],
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--encoding",
            metavar="NAME",
            help=f"Name of an encoding, or path of a table; repeatable. Default: {', '.join(DEFAULT_ENCODINGS)}.",
            show_default=False,
        ),
    ] = None,
    patch: Annotated[int, typer.Option("--patch", metavar="P", min=1, help="Bytes per patch of the model.")] = 4,
    png: Annotated[
        Path | None,
        typer.Option("--png", metavar="FILE", help="Draw the text in the first dense encoding, beside UTF-8."),
    ] = None,
    json: Json = False,
) -> None:
    """Each character of TEXT, its bytes in the encodings, what each byte is, and the patches (a bar begins one).

    encoding, digest, characters, patches, bytes and bytes_per_character are those of the first encoding.

    JSON fields: command, text, patch, png, encoding, digest, characters (of each: character, scalar, name, word, start,
    classes, first_patch, last_patch), patches, bytes, bytes_per_character, encodings (of each: encoding, digest,
    characters, patches, bytes, bytes_per_character).
    """
    check_text(text, "TEXT")
    view = EncodingView(text, [resolve_encoding(name) for name in names or DEFAULT_ENCODINGS], patch)
    if png is not None:
        from bytelm.evaluation.dense_picture import plot_dense_code

        plot_dense_code(png, view)
    described = view.describe()
    result = {
        "command": "encoding show",
        "text": text,
        "patch": patch,
        "png": None if png is None else str(png),
        **described[0],
        "encodings": described,
    }
    write_result(result, str(view), json)

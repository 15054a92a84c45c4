"""Prompts from arguments, files and standard input, each with the place to name in a message."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bytelm.cli.arguments import check_text
from bytelm.corpus import iter_documents
from bytelm.errors import CorpusError, DecodingError

_STANDARD_INPUT = "standard input"


@dataclass(frozen=True)
class Prompt:
    """A text to continue, and where it was found."""

    text: str
    place: str


def read_prompts(arguments: Sequence[str], file: Path | None) -> list[Prompt]:
    """The arguments, or the lines of a file (``-``: standard input), or of standard input where nothing is given.

    Blank lines hold no prompt. A ``.jsonl`` file, compressed or not, is read as in ``bytelm corpus build``.

    Raises:
        DecodingError: both kinds are given, or no prompt is found.
        CorpusError: a file that cannot be read, or a line that is not text.
        EncodingError: an argument that is not UTF-8.
    """
    if arguments and file is not None:
        raise DecodingError("prompts: found PROMPT and --prompts-file, expected one of them")
    if arguments:
        prompts = [Prompt(text, f"PROMPT {number}") for number, text in enumerate(arguments, 1)]
        for prompt in prompts:
            check_text(prompt.text, prompt.place)
        return prompts
    if file is None and sys.stdin.isatty():
        raise DecodingError("prompts: found none, expected PROMPT, --prompts-file or text on standard input")
    if file is None or str(file) == "-":
        prompts = _read_lines(sys.stdin.buffer, _STANDARD_INPUT)
    elif ".jsonl" in file.suffixes:
        prompts = [Prompt(document.text, f"{file}:{document.line}") for document in iter_documents(file)]
    else:
        with file.open("rb") as lines:
            prompts = _read_lines(lines, str(file))
    if not prompts:
        raise DecodingError(f"{file or _STANDARD_INPUT}: found no prompt, expected at least one line")
    return prompts


def _read_lines(lines: Iterable[bytes] | IO[bytes], name: str) -> list[Prompt]:
    prompts = []
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            found = error.object[error.start : error.end].hex(" ")
            raise CorpusError(
                f"{name}:{number}: found the bytes {found} at byte {error.start}, expected UTF-8"
            ) from None
        if text.strip():
            prompts.append(Prompt(text, f"{name}:{number}"))
    return prompts

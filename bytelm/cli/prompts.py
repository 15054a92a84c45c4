"""Prompts from arguments, files and standard input, each with the place to name in a message."""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bytelm.cli.arguments import check_text
from bytelm.corpus import iter_documents
from bytelm.errors import ConfigError, CorpusError, DecodingError

_STANDARD_INPUT = "standard input"
_MODEL = re.compile(r"[\w.~/\\:-]+", re.ASCII)
"""What names a model that is no folder here: a mistyped one is to be refused, not continued as if it were a text."""


@dataclass(frozen=True)
class Prompt:
    """A text to continue, and where it was found."""

    text: str
    place: str


def split_model(arguments: Sequence[str], model: str | None) -> tuple[str, list[str]]:
    """The model and the texts of ``[MODEL] [TEXT]…``.

    The first argument is the model if it is a folder, or written like a name, a path or an id: ASCII letters, digits
    and ``._-~/\\:`` alone. Otherwise the model is that of the package.

    Args:
        arguments: of the command.
        model: what an option names, beside which all arguments are texts; or None.
    """
    from bytelm.hub.shipped import DEFAULT_MODEL

    if model is not None:
        return model, list(arguments)
    if arguments and (_MODEL.fullmatch(arguments[0]) or os.path.isdir(arguments[0])):
        return arguments[0], list(arguments[1:])
    return DEFAULT_MODEL, list(arguments)


def find_model(model: str) -> Path:
    """What to load; the default model is refused where it is neither in the package nor a folder.

    Raises:
        ConfigError: says what to give.
    """
    from bytelm.hub.shipped import DEFAULT_MODEL, shipped_folder

    if model == DEFAULT_MODEL and shipped_folder(model) is None and not os.path.isdir(model):
        raise ConfigError(
            f"MODEL: found none, and this package comes without {DEFAULT_MODEL}, expected a folder or an id of the hub"
        )
    return Path(model)


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


def decode_line(line: bytes, name: str, number: int) -> str:
    """The text of a line without its end, and of the first one without a byte order mark.

    Raises:
        CorpusError: it is not UTF-8.
    """
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        found = error.object[error.start : error.end].hex(" ")
        raise CorpusError(f"{name}:{number}: found the bytes {found} at byte {error.start}, expected UTF-8") from None


def _read_lines(lines: Iterable[bytes] | IO[bytes], name: str) -> list[Prompt]:
    texts = [(number, decode_line(line, name, number)) for number, line in enumerate(lines, 1)]
    return [Prompt(text, f"{name}:{number}") for number, text in texts if text.strip()]

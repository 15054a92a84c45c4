"""``bytelm generate --interactive``: lines that are typed, each continued as it is generated."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from bytelm.cli.arguments import check_text
from bytelm.cli.console import write_error, write_line, write_note
from bytelm.cli.prompts import decode_line
from bytelm.errors import BytelmError, DecodingError

if TYPE_CHECKING:
    from bytelm.hub import LanguageModel

SAMPLED = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""Options that act with ``do_sample`` alone."""

_SIGN = "> "
_HELP = """\
Every line begins a new text, which the model continues. Options hold until they are changed.
  (an empty line)  goes on where the text ended
  /more TEXT       puts TEXT after the text, and goes on
  /again           the last line once more, with the next seed
  /NAME VALUE      sets an option: /seed 7, /law next, /temperature 0.8, /do_sample on
  /NAME            shows an option; /options shows all
  //TEXT           begins a text with /
  /help            these lines
Ctrl-C ends a text, whose beginning stays; Ctrl-D ends the loop."""


def _switch(value: str) -> bool:
    return {"on": True, "off": False}[value]


_SETTINGS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    **dict.fromkeys(("seed", "max_new_tokens", "min_new_tokens", "max_new_chars"), (int, "a whole number")),
    **dict.fromkeys(("num_draft_tokens", "top_k", "no_repeat_ngram_size"), (int, "a whole number")),
    **dict.fromkeys(("max_time", "temperature", "top_p", "min_p", "typical_p"), (float, "a number")),
    **dict.fromkeys(("repetition_penalty", "frequency_penalty", "presence_penalty"), (float, "a number")),
    **dict.fromkeys(("do_sample", "valid_text"), (_switch, "on or off")),
    **dict.fromkeys(("law", "attention", "pattern", "stop"), (str, "text")),
}
"""Options that a line can set, how they are read, and what is expected."""


class Conversation:
    """A text that grows line by line.

    Args:
        lm: continues it.
        options: of :meth:`bytelm.hub.LanguageModel.stream`.
    Attributes:
        text: all of it: what was typed and what was generated.
    """

    def __init__(self, lm: "LanguageModel", options: Mapping[str, Any]) -> None:
        self.lm, self.options = lm, dict(options)
        self.text = ""
        self._begun = ""

    def take(self, line: str) -> None:
        """Do what a line asks for.

        Raises:
            DecodingError: there is no such command or option, or nothing to go on with; or as
                :meth:`bytelm.hub.LanguageModel.stream` does, as do its other errors.
        """
        name, _, value = line.removeprefix("/").partition(" ")
        name = name.replace("-", "_")
        if not line.startswith("/") or line.startswith("//"):
            self._continue(line.removeprefix("/") if line.startswith("//") else line or self._text_so_far())
        elif name == "more":
            self._continue(self._text_so_far() + value)
        elif name == "again":
            self.options["seed"] = self.options.get("seed", 0) + 1
            self._continue(self._begun or self._text_so_far())
        elif name == "help":
            _write_lines(_HELP)
        elif name == "options":
            _write_lines("\n".join(f"/{name} {self._shown(name)}" for name in _SETTINGS))
        else:
            self._set(name, value)

    def _text_so_far(self) -> str:
        if not self.text:
            raise DecodingError("found an empty line, expected text to begin with")
        return self.text

    def _continue(self, prompt: str) -> None:
        """Write the continuation as it comes; Ctrl-C ends it."""
        try:
            pieces = self.lm.stream(prompt, **self.options)
            self._begun = self.text = prompt
            for piece in pieces:
                self.text += piece
                write_line(piece, end="")
        except KeyboardInterrupt:
            write_line("")
            write_note("stopped; an empty line goes on")
        else:
            write_line("")

    def _set(self, name: str, value: str) -> None:
        if name not in _SETTINGS:
            raise DecodingError(f"/{name}: unknown, expected one of those that /help and /options show")
        if value:
            read, expected = _SETTINGS[name]
            try:
                self.options[name] = read(value)
            except (ValueError, KeyError):
                raise DecodingError(f"/{name}: found {value!r}, expected {expected}") from None
            if name in SAMPLED and not self.options.get("do_sample"):
                write_error(f"warning: /{name} without /do_sample on: no effect")
        _write_lines(f"/{name} {self._shown(name)}")

    def _shown(self, name: str) -> str:
        match self.options.get(name):
            case bool(value):
                return "on" if value else "off"
            case None:
                return "(default)"
            case list(values):
                return " ".join(map(str, values))
            case value:
                return str(value)


def _write_lines(text: str) -> None:
    """Lines on standard error, as they are."""
    typer.echo(text, err=True)


def talk(lm: "LanguageModel", options: Mapping[str, Any]) -> None:
    """Take lines of standard input until it ends.

    In a terminal a line that is refused is told and forgotten.

    Raises:
        BytelmError: a line of a file or pipe is refused; the message names it.
    """
    conversation = Conversation(lm, options)
    typed = sys.stdin.isatty()
    if typed:
        write_note(f"{lm.tokenizer.name}, law {options.get('law', lm.law)}; /help explains, Ctrl-D ends")
    for place, line in _typed_lines() if typed else _piped_lines():
        try:
            check_text(line, place)
            conversation.take(line)
        except BytelmError as error:
            message = re.sub(r"^prompt 0: ", "", str(error))
            if not typed:
                raise type(error)(f"{place}: {message.removeprefix(f'{place}: ')}") from None
            write_error(f"error: {message}")


def _typed_lines() -> Iterator[tuple[str, str]]:
    """Lines from the keyboard, with the history and the keys of readline; Ctrl-C gives up a line."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (input() uses it from now on)
    while True:
        try:
            line = _ask()
        except KeyboardInterrupt:
            typer.echo(err=True)
            continue
        except EOFError:
            typer.echo(err=True)
            return
        yield "line", line


def _ask() -> str:
    if sys.stdout.isatty():
        return input(_SIGN)
    typer.echo(_SIGN, nl=False, err=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def _piped_lines() -> Iterator[tuple[str, str]]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        yield f"standard input:{number}", decode_line(line, "standard input", number)

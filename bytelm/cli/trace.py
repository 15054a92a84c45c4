"""Generated text in colours: where each symbol came from."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bytelm.hub import Output

_STYLES = {"law": "", "heads": "black on green", "lookup": "black on yellow", "model": "black on cyan"}
_BOUNDARY = "dim"


def write_trace(output: "Output", row: int) -> None:
    """Write a row of an output to standard output, each forward's text after a bar, drafted text in a colour.

    Where standard output is no terminal the drafter stands in brackets before what it had proposed.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    line, before = Text(), -1
    for text, source, forward in output.spans(row):
        if forward != before:
            line.append("|", style=_BOUNDARY)
        if source != "law" and not console.is_terminal:
            line.append(f"[{source}]")
        line.append(text, style=_STYLES.get(source, "reverse"))
        before = forward
    line.append("|", style=_BOUNDARY)
    console.print(line)
    if console.is_terminal:
        names = ["law", *output.stats.by_drafter]
        console.print(Text(" ").join(Text(name, style=_STYLES.get(name, "reverse")) for name in names))

"""Text as it is generated, in whole characters."""

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from bytelm.tokenizer import BaseTokenizer


def finished_text(tokenizer: BaseTokenizer[Any], symbols: NDArray[Any], end: int | None = None) -> str:
    """The text of generated symbols without controls, up to ``end`` characters; one that is not yet whole is left out.

    Bytes that are malformed whatever follows them are U+FFFD.
    """
    return tokenizer.decoder("replace", skip_controls=True).decode(symbols)[:end]


class TextStreamer:
    """Turns each row's symbols into text as soon as its characters are certain.

    Args:
        tokenizer: decodes.
        num_rows: rows of the batch.
        ends: of rows whose text ends inside a symbol or before it, its characters; looked at when symbols come.
        callback: called as ``callback(row, text)``, never with an empty text; the texts of a row add up to
            :func:`finished_text` of all its symbols.
    """

    def __init__(
        self,
        tokenizer: BaseTokenizer[Any],
        num_rows: int,
        ends: Mapping[int, int],
        callback: Callable[[int, str], None],
    ) -> None:
        self.ends, self.callback = ends, callback
        self._decoders = [tokenizer.decoder("replace", skip_controls=True) for _ in range(num_rows)]
        self._told = [0] * num_rows

    def __call__(self, row: int, new_symbols: NDArray[Any]) -> None:
        """Take a row's new symbols."""
        text = self._decoders[row].decode(new_symbols)
        if row in self.ends:
            text = text[: self.ends[row] - self._told[row]]
        self._told[row] += len(text)
        if text:
            self.callback(row, text)

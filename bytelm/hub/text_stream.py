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


class RowText:
    """The text of one row as its symbols come, in characters that are certain.

    Args:
        tokenizer: decodes.
        row: its id.
        ends: of rows whose text ends inside a symbol or before it, its characters; looked at when symbols come.
    """

    def __init__(self, tokenizer: BaseTokenizer[Any], row: int, ends: Mapping[int, int]) -> None:
        self._row, self._ends = row, ends
        self._decoder = tokenizer.decoder("replace", skip_controls=True)
        self._told = 0

    def read(self, new_symbols: NDArray[Any]) -> str:
        """The characters that are certain now; those of all reads add up to :func:`finished_text` of all symbols."""
        text = self._decoder.decode(new_symbols)
        if self._row in self._ends:
            text = text[: self._ends[self._row] - self._told]
        self._told += len(text)
        return text


class TextStreamer:
    """Turns each row's symbols into text as soon as its characters are certain.

    Args:
        tokenizer: decodes.
        num_rows: rows of the batch.
        ends: see :class:`RowText`.
        callback: called as ``callback(row, text)``, never with an empty text.
    """

    def __init__(
        self,
        tokenizer: BaseTokenizer[Any],
        num_rows: int,
        ends: Mapping[int, int],
        callback: Callable[[int, str], None],
    ) -> None:
        self.callback = callback
        self._rows = [RowText(tokenizer, row, ends) for row in range(num_rows)]

    def __call__(self, row: int, new_symbols: NDArray[Any]) -> None:
        """Take a row's new symbols."""
        text = self._rows[row].read(new_symbols)
        if text:
            self.callback(row, text)

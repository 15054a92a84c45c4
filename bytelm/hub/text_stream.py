"""Text as it is generated, in whole characters."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bytelm.tokenizer import Tokenizer


class TextStreamer:
    """Turns each row's symbols into text as soon as its code words are complete.

    Args:
        tokenizer: decodes.
        num_rows: rows of the batch.
        callback: called as ``callback(row, text)``, never with an empty text; the texts of a row add up to the decode
            of all its symbols.
    """

    def __init__(self, tokenizer: Tokenizer, num_rows: int, callback: Callable[[int, str], None]) -> None:
        self.tokenizer, self.callback = tokenizer, callback
        self.pending: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)] * num_rows

    def __call__(self, row: int, new_symbols: NDArray[np.uint8]) -> None:
        """Take a row's new symbols."""
        pending = np.concatenate((self.pending[row], new_symbols))
        complete = self.tokenizer.encoding.complete(pending)
        self.pending[row] = pending[complete:]
        self._emit(row, pending[:complete])

    def finish(self) -> None:
        """Give out what is left of each row; an unfinished word is U+FFFD."""
        for row, pending in enumerate(self.pending):
            self._emit(row, pending)
            self.pending[row] = pending[:0]

    def _emit(self, row: int, symbols: NDArray[np.uint8]) -> None:
        text = self.tokenizer.decode(symbols, errors="replace", skip_controls=True)
        if text:
            self.callback(row, text)

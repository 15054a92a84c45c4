"""Text as it is generated, in whole characters."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bytelm.tokenizer import Tokenizer


def split_finished(tokenizer: Tokenizer, symbols: NDArray[np.uint8]) -> tuple[str, NDArray[np.uint8]]:
    """The text of generated symbols without controls, and the symbols after it, of a character not yet whole.

    Bytes that are malformed whatever follows them are U+FFFD.
    """
    complete = tokenizer.encoding.complete(symbols)
    return tokenizer.decode(symbols[:complete], errors="replace", skip_controls=True), symbols[complete:]


class TextStreamer:
    """Turns each row's symbols into text as soon as its code words are complete.

    Args:
        tokenizer: decodes.
        num_rows: rows of the batch.
        callback: called as ``callback(row, text)``, never with an empty text; the texts of a row add up to
            the text of all its symbols.
    """

    def __init__(self, tokenizer: Tokenizer, num_rows: int, callback: Callable[[int, str], None]) -> None:
        self.tokenizer, self.callback = tokenizer, callback
        self.pending: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)] * num_rows

    def __call__(self, row: int, new_symbols: NDArray[np.uint8]) -> None:
        """Take a row's new symbols."""
        text, self.pending[row] = split_finished(self.tokenizer, np.concatenate((self.pending[row], new_symbols)))
        if text:
            self.callback(row, text)

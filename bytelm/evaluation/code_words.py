"""Code words of encodings and of Python's codecs, in one form, to compare them."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding import Encoding
from bytelm.errors import EncodingError

CODECS = ("cp932", "gb18030")
"""Codecs of Python, besides those that are encodings here, that write each character by itself."""


@final
@dataclass(frozen=True, slots=True)
class CodeWords:
    """A code word of at most four bytes for code points.

    Attributes:
        name: of the encoding or codec.
        words: uint8[0x110000, 4], padded with zero bytes.
        lengths: uint8[0x110000], in bytes; 0 for what has no word.
    """

    name: str
    words: NDArray[np.uint8]
    lengths: NDArray[np.uint8]

    @classmethod
    def of_encoding(cls, encoding: Encoding) -> "CodeWords":
        """The words of the scalar values."""
        lengths = encoding.lengths.copy()
        lengths[0xD800:0xE000] = 0
        return cls(encoding.name, encoding.words.view(np.uint8).reshape(-1, 4), lengths)

    @classmethod
    def of_codec(cls, name: str, points: NDArray[np.int64]) -> "CodeWords":
        """The words that a codec of Python has for ``points``, each encoded by itself.

        Raises:
            EncodingError: Python has no codec of this name.
        """
        words = np.zeros((0x110000, 4), dtype=np.uint8)
        lengths = np.zeros(0x110000, dtype=np.uint8)
        for point in points.tolist():
            try:
                word = chr(point).encode(name)
            except LookupError:
                raise EncodingError(f"codec: found {name!r}, expected one of Python's") from None
            except UnicodeEncodeError:
                continue
            words[point, : len(word)] = np.frombuffer(word, dtype=np.uint8)
            lengths[point] = len(word)
        return cls(name, words, lengths)

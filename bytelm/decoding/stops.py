"""When a row ends before its length limit, decided at the symbol where it happens."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.errors import DecodingError

Generated = NDArray[Any]
"""The symbols of one row so far, without the prompt: uint8 where the vocabulary has at most 256 symbols, else int64."""


Stop = Callable[[int, Generated], bool]
"""``stop(row, generated)``: whether the row ends with the last symbol of ``generated``, which stays in the output. Any
callable serves; it is asked once for every symbol, in order, also inside a block."""


@dataclasses.dataclass(frozen=True)
class SequenceStop:
    """End a row with the last symbol of ``sequence``: a control word, or the code of a stop string.

    Args:
        sequence: bytes or symbols, at least one. Only generated symbols match, never the prompt.
        aligned: ``aligned(generated, start)`` says whether a code word begins at index ``start`` of ``generated``. In a
            code whose words share bytes, those of a stop also occur across other words; such a match does not count.
            ``None``: every match counts.
    Raises:
        DecodingError: the sequence is empty.
    """

    sequence: Sequence[int]
    aligned: Callable[[Generated, int], bool] | None = None

    def __post_init__(self) -> None:
        if len(self.sequence) == 0:
            raise DecodingError("stop: found an empty sequence, expected at least one symbol")

    def __call__(self, row: int, generated: Generated) -> bool:
        """Whether ``generated`` ends with the sequence, aligned."""
        start = len(generated) - len(self.sequence)
        if start < 0 or generated[-1] != self.sequence[-1]:
            return False
        if not np.array_equal(generated[start:], np.asarray(list(self.sequence))):
            return False
        return self.aligned is None or bool(self.aligned(generated, start))

"""The order of all scalar values that a table of ranked characters stands for."""

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.convert import NUM_CODE_POINTS, all_values, code_points_of
from bytelm.errors import EncodingError


def rank_values(name: str, ranked: str) -> NDArray[np.int64]:
    """What has a code word, by rank, int64[1112192]: the characters of ``ranked``, the other scalar values in their
    order, the escapes.

    Raises:
        EncodingError: ``ranked`` holds a character twice or a lone surrogate; ``name`` says whose it is.
    """
    try:
        first = code_points_of(ranked).astype(np.int64)
    except EncodingError as error:
        raise EncodingError(f"{name}: ranked characters: {error}") from None
    seen = np.zeros(NUM_CODE_POINTS, dtype=np.bool_)
    seen[first] = True
    if seen.sum() != len(first):
        values, counts = np.unique(first, return_counts=True)
        twice = int(values[counts > 1][0])
        raise EncodingError(f"{name}: ranked characters: found U+{twice:04X} more than once, expected each once")
    values = all_values()
    return np.concatenate([first, values[~seen[values]]])


def lines_of(ranked: str, width: int = 64) -> list[str]:
    """The ranked characters in lines, so that a table can be read and compared."""
    return [ranked[start : start + width] for start in range(0, len(ranked), width)]

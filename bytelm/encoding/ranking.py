"""The order of all scalar values that a table of ranked characters stands for."""

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.base import NUM_CODE_POINTS, all_scalars, code_points_of
from bytelm.errors import EncodingError


def rank_scalars(name: str, ranked: str) -> NDArray[np.int64]:
    """All scalar values by rank, int64[1112064]: the characters of ``ranked``, then the others in scalar order.

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
    scalars = all_scalars()
    return np.concatenate([first, scalars[~seen[scalars]]])

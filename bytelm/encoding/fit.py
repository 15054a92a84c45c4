"""Fitting an (s,c)-dense code to text: count the characters, rank them, choose s and c."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.base import Encoding
from bytelm.encoding.convert import NUM_CODE_POINTS, NUM_WORDS, all_scalars, code_points_of, scalars_to_text
from bytelm.encoding.dense import DenseEncoding, tier_ends
from bytelm.errors import EncodingError

NUM_TEXT_BYTES = 248

_BATCH = 1 << 20  # characters counted at a time: a histogram over all code points costs the same for one as for many


def count_characters(texts: Iterable[str]) -> NDArray[np.int64]:
    """How often each code point occurs: int64[0x110000]. Streams: memory does not grow with the input.

    Raises:
        EncodingError: a lone surrogate, by the number of its text (from 0) and its index in it.
    """
    counts = np.zeros(NUM_CODE_POINTS, dtype=np.int64)
    batch: list[NDArray[np.uint32]] = []
    size = 0
    for number, text in enumerate(texts):
        for start in range(0, len(text), _BATCH):
            try:
                batch.append(code_points_of(text[start : start + _BATCH], start))
            except EncodingError as error:
                raise EncodingError(f"text {number}: {error}") from None
            size += len(batch[-1])
            if size >= _BATCH:
                counts += np.bincount(np.concatenate(batch), minlength=NUM_CODE_POINTS)
                batch, size = [], 0
    if batch:
        counts += np.bincount(np.concatenate(batch), minlength=NUM_CODE_POINTS)
    return counts


def fit_dense(counts: Mapping[str, int] | NDArray[np.int64], name: str, *, min_count: int = 2) -> DenseEncoding:
    """The (s,c)-dense code that needs the fewest bytes for text with these character counts.

    Characters are ranked by falling count, ties by scalar value; those seen less than ``min_count`` times take their
    rank by rule, after the ranked ones. Of all valid s, with c = 248 - s, the one with the exactly smallest
    total length is taken, the smallest s where several tie.

    Args:
        counts: characters to counts, or what ``count_characters`` returns.
        name: the name of the new encoding.
        min_count: how often a character must be seen to enter the table.

    Raises:
        EncodingError: nothing was counted, or ``counts`` has keys that are not single characters.
    """
    table = _count_table(counts)
    if min_count < 1:
        raise EncodingError(f"min_count: found {min_count}, expected at least 1")
    if not table.any():
        raise EncodingError(f"{name}: found no characters to fit to, expected at least one")
    kept = np.flatnonzero(table >= min_count)
    ranked = kept[np.argsort(-table[kept], kind="stable")]
    scalars = all_scalars()
    by_rank = np.concatenate([ranked, scalars[table[scalars] < min_count]])
    s = _best_s(table[by_rank])
    return DenseEncoding(name, s, NUM_TEXT_BYTES - s, scalars_to_text(ranked.astype(np.int32)))


def write_table(encoding: Encoding, path: Path) -> None:
    """Write ``encoding.to_dict()`` as JSON, whole or not at all; ``read_table`` reads it.

    Raises:
        EncodingError: the file cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(json.dumps(encoding.to_dict(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise EncodingError(f"{path}: {error.strerror}, expected a file that can be written") from None


def _count_table(counts: Mapping[str, int] | NDArray[np.int64]) -> NDArray[np.int64]:
    if not isinstance(counts, Mapping):
        if counts.shape != (NUM_CODE_POINTS,) or counts.min() < 0 or counts[0xD800:0xE000].any():
            raise EncodingError(
                f"counts: found an array of shape {counts.shape}, expected [{NUM_CODE_POINTS}] counts >= 0, "
                "0 for surrogates"
            )
        return counts
    table = np.zeros(NUM_CODE_POINTS, dtype=np.int64)
    for character, count in counts.items():
        if len(character) != 1 or count < 0:
            raise EncodingError(f"counts: found {character!r}: {count}, expected single characters with counts >= 0")
        table[code_points_of(character)] = count
    return table


def _best_s(counts_by_rank: NDArray[np.int64]) -> int:
    """The s with the smallest total of (count x word length): every rank from a tier's end on costs one byte more."""
    upto = np.concatenate([[0], np.cumsum(counts_by_rank)])
    total = int(upto[-1])
    cost = {}
    for s in range(1, NUM_TEXT_BYTES + 1):
        ends = tier_ends(s, NUM_TEXT_BYTES - s)
        if ends[-1] >= NUM_WORDS:
            cost[s] = total + sum(total - int(upto[min(end, len(counts_by_rank))]) for end in ends[:-1])
    return min(cost, key=cost.__getitem__)

"""Fitting a code to counts of characters: rank them, choose s and c, order them, write the table."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.base import CONTROL_NAMES, Encoding, control_names
from bytelm.encoding.convert import NUM_WORDS, all_scalars, code_points_of, scalars_to_text
from bytelm.encoding.counting import PairCounts, count_table
from bytelm.encoding.dense import DenseEncoding, tier_ends
from bytelm.encoding.order import Tier, arrange
from bytelm.encoding.ranked2 import Ranked2Encoding
from bytelm.errors import EncodingError

ASCII_ONE_BYTE: Final = "".join(map(chr, range(0x20, 0x7F))) + "\n\t"
"""The printable ASCII characters, newline and tab."""

_BLOCK_OF_UNITS: Final = 256  # units with the same first byte


def fit_dense(
    counts: Mapping[str, int] | NDArray[np.int64],
    name: str,
    *,
    min_count: int = 2,
    num_controls: int = len(CONTROL_NAMES),
    order: str = "rank",
    pairs: PairCounts | None = None,
    one_byte: str = ASCII_ONE_BYTE,
    seen: NDArray[np.int64] | None = None,
) -> DenseEncoding:
    """The (s,c)-dense code that needs the fewest bytes for text with these character counts.

    Characters are ranked by falling count, ties by scalar value; those seen less than ``min_count`` times take their
    rank by rule, after the ranked ones. Of all valid s, with s + c + ``num_controls`` = 256, the one with the exactly
    smallest total length is taken, the smallest s where several tie. The characters of ``one_byte`` have
    words of one byte at any rate, and s is the best under that condition.

    Args:
        counts: characters to counts, or what ``count_characters`` returns.
        name: the name of the new encoding.
        min_count: how often a character must be seen to enter the table.
        num_controls: byte values that no text uses, 3 to 64.
        order: how the characters of equally long words are arranged, see :func:`~bytelm.encoding.order.arrange`.
        pairs: what ``count_pairs`` returns; the order ``context`` needs it.
        one_byte: characters that get words of one byte however rare they are.
        seen: how often each character was really seen, int64[0x110000], where ``counts`` are weighted: ``min_count`` is
            compared with these.

    Raises:
        EncodingError: nothing was counted, ``counts`` has keys that are not single characters, or another argument is
            outside its range.
    """
    table = count_table(counts)
    kept = _kept(table, table if seen is None else count_table(seen), name, min_count, num_controls)
    forced = np.zeros(len(table), dtype=np.bool_)
    forced[code_points_of(one_byte)] = True
    scalars = all_scalars()
    free = kept[~forced[kept]]
    by_rule = np.ones(len(table), dtype=np.bool_)
    by_rule[free] = False
    by_rule[forced] = False
    s = choose_s(table[np.concatenate([free, scalars[by_rule[scalars]]])], int(forced.sum()), num_controls)
    c = 256 - num_controls - s
    room = s - int(forced.sum())
    ranked = np.concatenate([_by_count(np.concatenate([free[:room], np.flatnonzero(forced)]), table), free[room:]])
    ends = tier_ends(s, c)
    tiers = [Tier(start, stop, s) for start, stop in zip([0, *ends[:-1]], ends, strict=True)]
    ranked = arrange(ranked, table, tiers, order, pairs)
    return DenseEncoding(name, s, c, scalars_to_text(ranked.astype(np.int32)), num_controls)


def fit_ranked(
    counts: Mapping[str, int] | NDArray[np.int64],
    name: str,
    *,
    min_count: int = 2,
    num_controls: int = len(CONTROL_NAMES),
    order: str = "rank",
    pairs: PairCounts | None = None,
    seen: NDArray[np.int64] | None = None,
) -> Ranked2Encoding:
    """The code of two bytes for the most frequent characters and four for the rest, see ``Ranked2Encoding``.

    The arguments are those of :func:`fit_dense`. A block, for the orders, is the 256 words with the same first byte.

    Raises:
        EncodingError: as for :func:`fit_dense`.
    """
    table = count_table(counts)
    ranked = _kept(table, table if seen is None else count_table(seen), name, min_count, num_controls)
    by_rank = Ranked2Encoding(name, scalars_to_text(ranked.astype(np.int32)), num_controls)
    if order == "rank":
        return by_rank
    short = int(np.count_nonzero(by_rank.lengths == by_rank.unit))
    tiers = [Tier(0, short, _BLOCK_OF_UNITS), Tier(short, NUM_WORDS, NUM_WORDS)]
    ranked = arrange(ranked, table, tiers, order, pairs)
    return Ranked2Encoding(name, scalars_to_text(ranked.astype(np.int32)), num_controls)


def choose_s(counts_by_rank: NDArray[np.int64], num_forced: int = 0, num_controls: int = len(CONTROL_NAMES)) -> int:
    """The number of stoppers with the smallest total of (count x word length), the smallest one where several tie.

    Args:
        counts_by_rank: int64[n], counts of the characters that are not forced, the most frequent first.
        num_forced: characters with words of one byte besides these.
        num_controls: byte values that no text uses.

    Raises:
        EncodingError: no s leaves room for the forced characters and has a word for every scalar value.
    """
    num_bytes = 256 - num_controls
    upto = np.concatenate([[0], np.cumsum(counts_by_rank)])
    total = int(upto[-1])
    cost = {}
    for s in range(max(1, num_forced), num_bytes):
        ends = tier_ends(s, num_bytes - s)
        if ends[-1] >= NUM_WORDS:  # every rank from the end of a tier on costs one byte more
            cost[s] = sum(total - int(upto[min(end - num_forced, len(counts_by_rank))]) for end in ends[:-1])
    if not cost:
        raise EncodingError(
            f"one_byte: found {num_forced} characters, expected so few that {num_bytes} byte values "
            f"have {NUM_WORDS:,} words of up to 4 bytes besides"
        )
    return min(cost, key=cost.__getitem__)


def write_table(encoding: Encoding, path: Path) -> None:
    """Write ``encoding.to_dict()`` as JSON, whole or not at all; ``read_table`` reads it.

    What cannot be seen in print is an escape.

    Raises:
        EncodingError: the file cannot be written.
    """
    table = encoding.to_dict()
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(_visible(json.dumps(table, ensure_ascii=False, indent=1)) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise EncodingError(f"{path}: {error.strerror}, expected a file that can be written") from None


def _visible(text: str) -> str:
    """JSON with escapes for all characters that do not print."""
    hidden = {c for c in text if not c.isprintable() and c != "\n"}
    return text.translate({ord(c): json.dumps(c)[1:-1] for c in hidden})


def _kept(
    table: NDArray[np.int64], seen: NDArray[np.int64], name: str, min_count: int, num_controls: int
) -> NDArray[np.int64]:
    """The characters that enter the table, by rank."""
    if min_count < 1:
        raise EncodingError(f"min_count: found {min_count}, expected at least 1")
    control_names(num_controls)
    if not table.any():
        raise EncodingError(f"{name}: found no characters to fit to, expected at least one")
    return _by_count(np.flatnonzero((seen >= min_count) & (table > 0)), table)


def _by_count(members: NDArray[np.int64], table: NDArray[np.int64]) -> NDArray[np.int64]:
    return members[np.lexsort((members, -table[members]))]

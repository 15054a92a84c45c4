"""The order of the ranked characters inside a tier: a free choice, because all words of a tier are equally long."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.context_groups import group_by_context
from bytelm.encoding.convert import scalars_to_text
from bytelm.encoding.counting import PairCounts
from bytelm.encoding.scripts import scripts_of
from bytelm.errors import EncodingError

ORDERS: Final = ("rank", "codepoint", "script", "spread", "context")
"""The orders of :func:`arrange`."""


@final
@dataclass(frozen=True, slots=True)
class Tier:
    """Ranks ``start`` to ``stop`` - 1, whose words are equally long; ``block`` ranks differ in the last unit alone."""

    start: int
    stop: int
    block: int


def arrange(
    ranked: NDArray[np.int64],
    counts: NDArray[np.int64],
    tiers: Sequence[Tier],
    order: str,
    pairs: PairCounts | None = None,
) -> NDArray[np.int64]:
    """Rearrange ranked characters inside their tiers: a permutation that moves none to another tier.

    ``rank``: by falling count. ``codepoint``: by scalar value. ``script``: the Unicode scripts by their falling count
    among all ranked characters, the characters of each by falling count. ``spread``: the characters by falling count,
    dealt one to each block in turn, so that in a full tier of two-byte words the i-th gets lead byte i modulo c.
    ``context``: the blocks are groups of characters with similar neighbours (see ``group_by_context``), the characters
    of each by falling count. A tier of one block stays in the order of rank in the last two.

    Args:
        ranked: int64[n], scalar values by rank.
        counts: int64[0x110000].
        tiers: ranges of ranks without gaps from 0 on; the last ones may lie beyond n.
        order: one of ``ORDERS``.
        pairs: neighbours of characters; ``context`` alone needs them.

    Raises:
        EncodingError: an unknown order, or ``context`` without pairs.
    """
    if order not in ORDERS:
        raise EncodingError(f"order: found {order!r}, expected one of {', '.join(ORDERS)}")
    if order == "context" and pairs is None:
        raise EncodingError("order 'context': found no counts of pairs, expected those of count_pairs")
    by_count = ranked[np.lexsort((ranked, -counts[ranked]))]
    inside: Callable[[NDArray[np.int64], int], NDArray[np.int64]]
    if order == "codepoint":
        inside = lambda members, block: np.sort(members)  # noqa: E731
    elif order == "script":
        place = _script_places(by_count, counts)
        inside = lambda members, block: members[np.argsort(place[members], kind="stable")]  # noqa: E731
    elif order == "spread":
        inside = _spread
    elif order == "context" and pairs is not None:
        known = pairs
        inside = lambda members, block: _by_groups(members, block, counts, known)  # noqa: E731
    else:
        inside = lambda members, block: members  # noqa: E731
    parts = []
    for tier in tiers:
        members = ranked[tier.start : tier.stop]
        members = members[np.lexsort((members, -counts[members]))]
        parts.append(inside(members, tier.block))
    return np.concatenate([*parts, np.empty(0, np.int64)])


def _script_places(by_count: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[0x110000]: the place of the script of each ranked character, the script with the most text first."""
    names = scripts_of(scalars_to_text(by_count.astype(np.int32)))
    totals: dict[str, int] = {}
    for name, count in zip(names, counts[by_count].tolist(), strict=True):
        totals[name] = totals.get(name, 0) + count
    places = {name: place for place, name in enumerate(sorted(totals, key=lambda name: (-totals[name], name)))}
    result = np.zeros(len(counts), dtype=np.int64)
    result[by_count] = [places[name] for name in names]
    return result


def _spread(members: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    places = np.arange(len(members))
    dealt = np.lexsort((places // block, places % block))  # the first place of every block, then the second, …
    result = np.empty_like(members)
    result[dealt] = members
    return result


def _by_groups(
    members: NDArray[np.int64], block: int, counts: NDArray[np.int64], pairs: PairCounts
) -> NDArray[np.int64]:
    groups = group_by_context(members, block, counts, pairs)
    return members[np.argsort(groups, kind="stable")]

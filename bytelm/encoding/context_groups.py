"""Groups of characters with similar neighbours, of a given size."""

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.counting import PairCounts

NUM_NEIGHBOURS = 512
"""Neighbours that are told apart on each side, the most frequent ones; all others count as one."""

_ROUNDS = 40


def group_by_context(
    members: NDArray[np.int64], size: int, counts: NDArray[np.int64], pairs: PairCounts
) -> NDArray[np.int64]:
    """Divide characters into groups whose number says as much as can be about the neighbours of a character.

    What is raised is the mutual information of group and left neighbour plus that of group and right neighbour, by
    k-means with the Kullback-Leibler divergence, weighted by frequency (Dhillon, Mallela and Kumar, "A divisive
    information-theoretic feature clustering algorithm for text classification", 2003). Groups have a fixed size: in
    every round the characters that lose most by not getting their best group choose first. The best round is taken.
    The groups are numbered by the falling count of their characters. No chance is involved.

    Args:
        members: int64[n], scalar values by falling count.
        size: characters in a group; the last group holds what is left.
        counts: int64[0x110000].
        pairs: the neighbours.

    Returns:
        int64[n], the group of each member: every group but the last has ``size`` members.
    """
    if len(members) <= size:
        return np.zeros(len(members), dtype=np.int64)
    table = _neighbour_table(members, counts, pairs)
    rooms = [min(size, len(members) - start) for start in range(0, len(members), size)]
    groups = _assign(_costs(table, _seeds(table, len(rooms))), rooms)
    best, best_information = groups, information(table, groups, len(rooms))
    for _ in range(_ROUNDS):
        groups = _assign(_costs(table, _sums(table, groups, len(rooms))), rooms)
        found = information(table, groups, len(rooms))
        if found <= best_information * (1 + 1e-9):
            break
        best, best_information = groups, found
    return _numbered(best, counts[members], rooms)


def information(table: NDArray[np.float64], groups: NDArray[np.int64], num_groups: int) -> float:
    """Bits that the group tells about the column, over all counts of ``table`` [n, f], per count."""
    joint = _sums(table, groups, num_groups) / table.sum()
    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float(np.sum(joint[seen] * np.log2(joint[seen] / outer[seen])))


def _neighbour_table(members: NDArray[np.int64], counts: NDArray[np.int64], pairs: PairCounts) -> NDArray[np.float64]:
    """float64[n, 2(NUM_NEIGHBOURS + 1)]: how often each member stands beside each neighbour, left ones first."""
    row = np.full(len(counts), -1)
    row[members] = np.arange(len(members))
    column = np.full(len(counts), NUM_NEIGHBOURS)
    column[np.argsort(-counts, kind="stable")[:NUM_NEIGHBOURS]] = np.arange(NUM_NEIGHBOURS)
    table = np.zeros((len(members), 2 * (NUM_NEIGHBOURS + 1)))
    for side, (member, neighbour) in enumerate([(pairs.right, pairs.left), (pairs.left, pairs.right)]):
        inside = row[member] >= 0
        columns = column[neighbour[inside]] + side * (NUM_NEIGHBOURS + 1)
        np.add.at(table, (row[member[inside]], columns), pairs.counts[inside])
    return table + 1e-9 * max(table.sum(), 1.0) / table.size  # a character without a neighbour has a row all the same


def _seeds(table: NDArray[np.float64], num_groups: int) -> NDArray[np.float64]:
    """float64[k, f]: the most frequent member, then again and again the one that those chosen describe worst."""
    weights = table.sum(axis=1)
    own = np.sum(table * np.log(table / weights[:, None]), axis=1)
    chosen = [int(weights.argmax())]
    loss = np.full(len(table), np.inf)
    for _ in range(num_groups - 1):
        cost = _costs(table, table[chosen[-1:]])[:, 0]
        loss = np.minimum(loss, cost + own)
        loss[chosen] = -1.0
        chosen.append(int(loss.argmax()))
    return table[chosen]


def _sums(table: NDArray[np.float64], groups: NDArray[np.int64], num_groups: int) -> NDArray[np.float64]:
    return np.stack([table[groups == group].sum(axis=0) for group in range(num_groups)])


def _costs(table: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n, k]: nats that the neighbours of each member cost under the mean of each group, smoothed a little."""
    smooth = sums / sums.sum(axis=1, keepdims=True) + 0.01 * table.sum(axis=0) / table.sum()
    result: NDArray[np.float64] = -table @ np.log(smooth / smooth.sum(axis=1, keepdims=True)).T
    return result


def _assign(costs: NDArray[np.float64], rooms: list[int]) -> NDArray[np.int64]:
    """The cheapest group with room for each member; those with most to lose choose first."""
    sorted_costs = np.sort(costs, axis=1)
    regret = sorted_costs[:, 1] - sorted_costs[:, 0]
    preference = np.argsort(costs, axis=1, kind="stable").tolist()
    room = list(rooms)
    result = np.zeros(len(costs), dtype=np.int64)
    for member in np.argsort(-regret, kind="stable").tolist():
        group = next(group for group in preference[member] if room[group])
        result[member] = group
        room[group] -= 1
    return result


def _numbered(groups: NDArray[np.int64], counts: NDArray[np.int64], rooms: list[int]) -> NDArray[np.int64]:
    """The same groups, the heaviest first; the one that is not full, if any, stays the last."""
    weights = np.bincount(groups, weights=counts, minlength=len(rooms))
    full = [group for group in range(len(rooms)) if rooms[group] == rooms[0]]
    order = sorted(full, key=lambda group: (-weights[group], group)) + list(range(len(full), len(rooms)))
    number = np.empty(len(rooms), dtype=np.int64)
    number[order] = np.arange(len(rooms))
    return number[groups]

"""A preallocated key/value cache indexed by position: slots are overwritten, not moved, so roll-back is arithmetic."""

from collections.abc import Hashable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bytelm.graphs import InPlace
from bytelm.nn.windows import ABSENT


class KVCache(InPlace):
    """Keys and values of every block for a batch of streams.

    Rows are streams; slot ``t`` of a row holds the key and value of its patch position ``t``. Nothing records how much
    of a row is valid: a query at position ``t`` sees slots ``<= t``, and every slot is written before a query can see
    it. Slots begin as zeros because those that a mask hides must still hold finite numbers (0 times NaN is NaN).

    Args:
        num_blocks, num_rows, kv_heads, capacity, head_width: sizes.
        device, dtype: of keys and values.
        window: P, where the windows of symbols are kept, too, for n-grams that are longer than a patch and for matches;
            else 0.
    """

    def __init__(
        self,
        num_blocks: int,
        num_rows: int,
        kv_heads: int,
        capacity: int,
        head_width: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        window: int = 0,
    ) -> None:
        shape = (num_rows, kv_heads, capacity, head_width)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(num_blocks)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(num_blocks)]
        self.windows = torch.zeros((num_rows, capacity, window), device=device, dtype=torch.int64)

    @property
    def capacity(self) -> int:
        """Slots per row (S)."""
        return self.keys[0].shape[2]

    @property
    def num_rows(self) -> int:
        """Streams."""
        return self.keys[0].shape[0]

    @property
    def num_bytes(self) -> int:
        """Memory of all slots, in bytes."""
        return sum(part.nbytes for part in self._parts)

    @property
    def place(self) -> Hashable:
        """Rows, slots and addresses."""
        return self.num_rows, self.capacity, tuple(part.data_ptr() for part in self._parts)

    def clear(self) -> None:
        """Zeros again."""
        for part in self._parts:
            part.zero_()

    @property
    def _parts(self) -> list[Tensor]:
        return [*self.keys, *self.values, self.windows]

    def select(self, rows: Int[Tensor, " _"]) -> None:
        """Keep these rows, in this order; a row named twice is copied. Block by block, so that little is held twice."""
        for parts in (self.keys, self.values):
            for block, part in enumerate(parts):
                parts[block] = part[rows]
        self.windows = self.windows[rows]

    def join(self, other: "KVCache", capacity: int) -> None:
        """Take up the rows of another cache, after one's own; all then have ``capacity`` slots, and the other no rows.

        Block by block, so that little is held twice.
        """
        for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
            for block, parts in enumerate(zip(mine, theirs, strict=True)):
                mine[block], theirs[block] = _below_each_other(*parts, capacity, 2), parts[1][:0]
        self.windows = _below_each_other(self.windows, other.windows, capacity, 1)
        other.windows = other.windows[:0]


def _below_each_other(one: Tensor, other: Tensor, capacity: int, axis: int) -> Tensor:
    """The rows of both, cut or filled with zeros to ``capacity`` slots along an axis."""
    shape = list(one.shape)
    shape[0], shape[axis] = len(one) + len(other), capacity
    joined = one.new_zeros(shape)
    for rows, part in zip((joined[: len(one)], joined[len(one) :]), (one, other), strict=True):
        kept = min(capacity, part.shape[axis])
        rows.narrow(axis, 0, kept).copy_(part.narrow(axis, 0, kept))
    return joined


class CacheView:
    """Where one forward's new positions go, and what they may see: the same for every block, so computed once.

    Args:
        cache: the storage.
        rows: (B,) cache row of each sequence of the forward; None for all rows in order, which are then read in place.
        positions: (B, T) patch position of each new window.
        num_slots: S, one more than the largest position; given by the caller so that no device is asked.
        last_seen: (B, T) last slot that each position sees; None: its own.
    """

    def __init__(
        self,
        cache: KVCache,
        rows: Int[Tensor, " B"] | None,
        positions: Int[Tensor, "B T"],
        num_slots: int,
        last_seen: Int[Tensor, "B T"] | None = None,
    ) -> None:
        self.cache, self.rows, self.positions, self.num_slots = cache, rows, positions, num_slots
        self.last_seen = positions if last_seen is None else last_seen
        self._rows_B1: Int[Tensor, "B 1"] | None = None  # made for who asks: the native core does not

    @property
    def rows_B1(self) -> Int[Tensor, "B 1"]:
        """Cache row of each sequence."""
        if self._rows_B1 is None:
            rows = torch.arange(len(self.positions), device=self.positions.device) if self.rows is None else self.rows
            self._rows_B1 = rows[:, None]
        return self._rows_B1

    @property
    def mask_B1TS(self) -> Bool[Tensor, "B 1 T S"]:
        """Which slots each position sees."""
        slots = torch.arange(self.num_slots, device=self.positions.device)
        return (slots <= self.last_seen[..., None])[:, None]

    def extend(
        self, block: int, k_BGTE: Float[Tensor, "B G T E"], v_BGTE: Float[Tensor, "B G T E"]
    ) -> tuple[Float[Tensor, "B G S E"], Float[Tensor, "B G S E"]]:
        """Write the new keys and values of ``block``; return all that its queries may see."""
        keys, values = self.cache.keys[block], self.cache.values[block]
        into = self.rows_B1, slice(None), self.positions
        keys[into] = k_BGTE.transpose(1, 2).to(keys.dtype)
        values[into] = v_BGTE.transpose(1, 2).to(values.dtype)
        keys, values = keys[:, :, : self.num_slots], values[:, :, : self.num_slots]
        return (keys, values) if self.rows is None else (keys[self.rows], values[self.rows])

    def keep(self, windows_BTP: Int[Tensor, "B T P"]) -> None:
        """Write the new windows, where the cache has room for windows."""
        if self.cache.windows.shape[-1]:
            self.cache.windows[self.rows_B1, self.positions] = windows_BTP

    def before(self, num: int) -> Int[Tensor, "B T _"]:
        """The ``num`` windows before each new one, put together; :data:`ABSENT` before position 0."""
        lags = torch.arange(num, 0, -1, device=self.positions.device)
        slots_BTN = self.positions[..., None] - lags
        found = self.cache.windows[self.rows_B1[..., None], slots_BTN.clamp(min=0)]
        return torch.where((slots_BTN >= 0)[..., None], found, ABSENT).flatten(2)

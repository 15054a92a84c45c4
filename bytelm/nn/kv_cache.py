"""A preallocated key/value cache indexed by position: slots are overwritten, not moved, so roll-back is arithmetic."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class KVCache:
    """Keys and values of every block for a batch of streams.

    Rows are streams; slot ``t`` of a row holds the key and value of its patch position ``t``. Nothing records how much
    of a row is valid: a query at position ``t`` sees slots ``<= t``, and every slot is written before a query can see
    it. Slots begin as zeros because those that a mask hides must still hold finite numbers (0 times NaN is NaN).
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
    ) -> None:
        shape = (num_blocks, num_rows, kv_heads, capacity, head_width)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)

    @property
    def capacity(self) -> int:
        """Slots per row (S)."""
        return self.keys.shape[3]

    def write(
        self,
        block: int,
        rows: Int[Tensor, " B"],
        positions: Int[Tensor, "B T"],
        k_BGTE: Float[Tensor, "B G T E"],
        v_BGTE: Float[Tensor, "B G T E"],
    ) -> None:
        """Put new keys and values of ``block`` at ``positions`` of ``rows``."""
        self.keys[block][rows[:, None], :, positions] = k_BGTE.transpose(1, 2).to(self.keys.dtype)
        self.values[block][rows[:, None], :, positions] = v_BGTE.transpose(1, 2).to(self.values.dtype)

    def read(
        self, block: int, rows: Int[Tensor, " B"], num_slots: int
    ) -> tuple[Float[Tensor, "B G S E"], Float[Tensor, "B G S E"]]:
        """The first ``num_slots`` slots of ``rows``; a view when ``rows`` are all rows in order, else a copy."""
        keys, values = self.keys[block, :, :, :num_slots], self.values[block, :, :, :num_slots]
        if len(rows) == keys.shape[0]:
            return keys, values
        return keys[rows], values[rows]


class CacheView:
    """Where one forward's new positions go, and what they may see: the same for every block, so computed once.

    Args:
        cache: the storage.
        rows: (B,) cache row of each sequence of the forward; all rows in order when as many as the cache has.
        positions: (B, T) patch position of each new window.
        num_slots: S, one more than the largest position; given by the caller so that no device is asked.
    """

    def __init__(self, cache: KVCache, rows: Int[Tensor, " B"], positions: Int[Tensor, "B T"], num_slots: int) -> None:
        self.cache, self.rows, self.positions, self.num_slots = cache, rows, positions, num_slots
        slots = torch.arange(num_slots, device=positions.device)
        self.mask_B1TS = (slots <= positions[..., None])[:, None]

    def extend(
        self, block: int, k_BGTE: Float[Tensor, "B G T E"], v_BGTE: Float[Tensor, "B G T E"]
    ) -> tuple[Float[Tensor, "B G S E"], Float[Tensor, "B G S E"]]:
        """Write the new keys and values of ``block``; return all that its queries may see."""
        self.cache.write(block, self.rows, self.positions, k_BGTE, v_BGTE)
        return self.cache.read(block, self.rows, self.num_slots)

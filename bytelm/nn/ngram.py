"""Tables of n-grams, hashed or chosen: capacity that costs a row read per position and no matrix work."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.nn import native
from bytelm.nn.embedding import embedding
from bytelm.nn.int8_rows import restore_rows, round_rows
from bytelm.nn.known_modules import Knowledge
from bytelm.nn.linear import Linear
from bytelm.nn.matches import Matches
from bytelm.nn.native_tables import TableAddresses, sum_rows

_MULTIPLIER = 0x9E3779B1  # 2^32 / golden ratio: Fibonacci hashing (Knuth, TAOCP vol. 3, section 6.4)
_MASK = 0xFFFFFFFF
_HALF = 1 << 31  # between keys and the signed numbers that they are kept as
_NO_KEY = _HALF - 1


def ngram_keys(bytes_TN: Int[Tensor, "*T N"]) -> Int[Tensor, "*T"]:
    """Key of the n-gram made of the last axis: a 32-bit multiplicative hash, the same on every platform.

    It is injective for n <= 2, and from n = 3 on as good as a random function: of all 2^24 trigrams, 0.2 % share their
    key. Symbols may be tokens, which it scatters as well, and :data:`bytelm.nn.windows.ABSENT`.
    """
    key = torch.full(bytes_TN.shape[:-1], bytes_TN.shape[-1], dtype=torch.int64, device=bytes_TN.device)
    for i in range(bytes_TN.shape[-1]):
        key = ((key * 257 + bytes_TN[..., i].long() + 1) & _MASK) * _MULTIPLIER & _MASK
        key = key ^ (key >> 15)
    return key


class NgramTables(nn.Module):
    """The sum over n of a learned row for the n bytes that end a byte string (cf. BLT's hash n-gram embeddings,
    Pagnoni et al. 2024, arXiv:2412.09871, section 3.2.1; here one row per patch position, at full width).

    Args:
        orders: the n, each at most the number of symbols that callers have at hand.
        num_rows: rows per table.
        width: D.
        row_width: numbers of a row, if they are not D; the sum of the rows is then projected to D.
        matches: have rows behind those of n-grams, which are added to the sum; or None.
    """

    def __init__(
        self,
        orders: Sequence[int],
        num_rows: int,
        width: int,
        row_width: int | None = None,
        matches: Matches | None = None,
    ) -> None:
        super().__init__()
        self.orders, self.num_rows, self.matches = tuple(orders), num_rows, matches
        rows = self._num_of_ngrams + (matches.num_rows if matches else 0)
        self.table: nn.Embedding | Int8Rows = embedding(rows, row_width or width)
        self.projection = Linear(row_width, width, bias=False) if row_width else nn.Identity()
        self.row_width = row_width or width
        self._orders: Tensor | None = None  # as the native core reads them
        self._found: tuple[tuple[object, ...], TableAddresses | None] | None = None  # addresses, and what they hold for

    @property
    def _num_of_ngrams(self) -> int:
        """Rows of n-grams, which come first."""
        return len(self.orders) * self.num_rows

    def rows_of(
        self, bytes_BN: Int[Tensor, "*B N"], prefix_B_: Int[Tensor, "*B _"] | None = None
    ) -> Int[Tensor, "*B _"]:
        """The row of the n-gram of each order that ends at the last byte of each string, and behind them those of
        matches.

        Args:
            bytes_BN: the strings; or windows, each of which has a prefix of a patch behind it.
            prefix_B_: the prefixes; none by default.
        """
        prefix_B_ = bytes_BN[..., :0] if prefix_B_ is None else prefix_B_
        ending = torch.cat((bytes_BN[..., -max(self.orders) :], prefix_B_), dim=-1)
        rows = self._rows_of_ngrams(ending)
        if self.matches is None:
            return rows
        return torch.cat((rows, self.matches.rows_of(bytes_BN, prefix_B_) + self._num_of_ngrams), dim=-1)

    def forward(
        self, bytes_BN: Int[Tensor, "*B N"], prefix_B_: Int[Tensor, "*B _"] | None = None
    ) -> Float[Tensor, "*B D"]:
        """Sum of the rows of :meth:`rows_of`, at width D."""
        return self.projection(self.sum_of_rows(bytes_BN, prefix_B_))

    def sum_of_rows(
        self, bytes_BN: Int[Tensor, "*B N"], prefix_B_: Int[Tensor, "*B _"] | None = None
    ) -> Float[Tensor, "*B _"]:
        """The sum before its projection."""
        found = self._in_core(bytes_BN) if prefix_B_ is None else None
        return self.table(self.rows_of(bytes_BN, prefix_B_)).sum(dim=-2) if found is None else found

    def _in_core(self, bytes_BN: Int[Tensor, "*B N"]) -> Float[Tensor, "*B _"] | None:
        """The sum in one call of the native core; None where it cannot read these rows, or so many."""
        rows, num = bytes_BN.numel() // bytes_BN.shape[-1], bytes_BN.shape[-1]
        dtype = self.table.dtype if isinstance(self.table, Int8Rows) else self.table.weight.dtype
        if num < max(self.orders) or type(bytes_BN) is not Tensor or bytes_BN.dtype != torch.int64:
            return None
        if not native.takes_rows(rows, self.row_width, dtype, bytes_BN.device):
            return None
        weights = _TABLES.addresses(self, dtype)
        tables = None if weights is None else self.addresses(weights, dtype)
        return None if tables is None else sum_rows(bytes_BN, tables, dtype)

    def _rows_of_ngrams(self, bytes_BN: Int[Tensor, "*B N"]) -> Int[Tensor, "*B _"]:
        begins = torch.arange(0, self._num_of_ngrams, self.num_rows, device=bytes_BN.device)
        return self._keys(bytes_BN) % self.num_rows + begins

    def _keys(self, bytes_BN: Int[Tensor, "*B N"]) -> Int[Tensor, "*B _"]:
        """The key of the n-gram of each order that ends at the last byte of each string."""
        return torch.stack([ngram_keys(bytes_BN[..., bytes_BN.shape[-1] - n :]) for n in self.orders], dim=-1)

    def addresses(self, weights: tuple[int, ...], dtype: torch.dtype) -> TableAddresses | None:
        """Where the tables are, for the native core; None where it cannot read them.

        Args:
            weights: addresses of the weights of :func:`parts_of_tables`.
            dtype: that the rows are to have.
        """
        modules = list(filter(None, self._modules.values()))  # by name they are found in Python
        buffers = [
            buffer.data_ptr() for part in (self, *modules) for buffer in part._buffers.values() if buffer is not None
        ]
        now = (weights, dtype, *map(type, modules), *buffers)
        if self._found is None or self._found[0] != now:
            self._found = now, self._find_addresses(weights, dtype)
        return self._found[1]

    def _find_addresses(self, weights: tuple[int, ...], dtype: torch.dtype) -> TableAddresses | None:
        scales, known = 0, list(weights)
        if type(self.table) is Int8Rows and self.table.is_for_core(dtype):
            scales = self.table.scales_R.data_ptr()
            known.insert(0, self.table.codes_RD.data_ptr())
        has_projection = type(self.projection) is Linear
        if type(self) not in (NgramTables, ChosenNgrams) or len(known) != 1 + has_projection:
            return None
        if self._orders is None:
            self._orders = torch.tensor(self.orders)
        projection = known[1] if has_projection else 0
        orders, keys = self._orders.data_ptr(), self._key_address()
        matches = None if self.matches is None else self.matches.addresses
        return TableAddresses(
            known[0], scales, projection, orders, keys, len(self.orders), self.num_rows, self.row_width, matches
        )

    def _key_address(self) -> int:
        """Where keys are; 0 where there are none."""
        return 0


class ChosenNgrams(NgramTables):
    """Rows for chosen n-grams alone, whatever their n: none has a row that others read, too, as hashed ones have.

    Row i stands for those of order ``orders[i]`` that were not chosen; the others are found by their keys. As long as
    nothing was chosen, no n-gram has a row of its own.

    Args:
        orders: the n, each at most the number of symbols that callers have at hand.
        num_rows: rows per order, on the mean.
        width: D.
        row_width: numbers of a row, if they are not D; the sum of the rows is then projected to D.
        matches: have rows behind those of n-grams, which are added to the sum; or None.
    """

    keys_R: Tensor

    def __init__(
        self,
        orders: Sequence[int],
        num_rows: int,
        width: int,
        row_width: int | None = None,
        matches: Matches | None = None,
    ) -> None:
        super().__init__(orders, num_rows, width, row_width, matches)
        self.register_buffer("keys_R", torch.full((self.capacity,), _NO_KEY, dtype=torch.int32))

    @property
    def capacity(self) -> int:
        """How many n-grams can have rows."""
        return len(self.orders) * (self.num_rows - 1)

    @property
    def is_chosen(self) -> bool:
        """Whether n-grams have been chosen."""
        return bool((self.keys_R != _NO_KEY).any())

    def choose(self, keys: Int[Tensor, " _"]) -> None:
        """Give rows to the n-grams of these keys (:func:`ngram_keys`), at most :attr:`capacity` of them."""
        assert len(keys) <= self.capacity
        self.keys_R.fill_(_NO_KEY)
        self.keys_R[: len(keys)] = (keys - _HALF).int()
        self.keys_R.copy_(self.keys_R.sort().values)

    def _rows_of_ngrams(self, bytes_BN: Int[Tensor, "*B N"]) -> Int[Tensor, "*B _"]:
        keys = (self._keys(bytes_BN) - _HALF).int()
        found = torch.searchsorted(self.keys_R, keys).clamp(max=len(self.keys_R) - 1)
        unknown = torch.arange(len(self.orders), device=keys.device)
        return torch.where(self.keys_R[found] == keys, found + len(self.orders), unknown)

    def _key_address(self) -> int:
        return self.keys_R.data_ptr()


def parts_of_tables(tables: NgramTables) -> list[nn.Embedding | Linear]:
    """Those parts whose weight the native core reads: rows that are not in int8, and a projection. None, unless it can
    read all.
    """
    parts: list[nn.Embedding | Linear] = []
    for part, unread in ((tables.table, Int8Rows), (tables.projection, nn.Identity)):
        if isinstance(part, nn.Embedding | Linear) and type(part) in (nn.Embedding, Linear):
            parts.append(part)
        elif type(part) is not unread:
            return []
    return parts if all(native.has_width(part.weight) for part in parts) else []


_TABLES = Knowledge(lambda tables: parts_of_tables(tables) if isinstance(tables, NgramTables) else None)


def named_rows(model: nn.Module) -> dict[str, nn.Embedding]:
    """The rows of all n-gram tables that are not in int8, by the names of their weights."""
    found = ((name, module.table) for name, module in model.named_modules() if isinstance(module, NgramTables))
    return {f"{name}.table.weight": table for name, table in found if isinstance(table, nn.Embedding)}


class Int8Rows(nn.Module):
    """The rows of a table in int8, as :func:`~bytelm.nn.int8_rows.round_rows` makes them.

    For inference: there is nothing to train.

    Args:
        table_RD: the rows that are rounded.
    """

    codes_RD: Tensor
    scales_R: Tensor

    def __init__(self, table_RD: Float[Tensor, "R D"]) -> None:
        super().__init__()
        self.dtype = table_RD.dtype
        codes_RD, scales_R = round_rows(table_RD)
        self.register_buffer("codes_RD", codes_RD)
        self.register_buffer("scales_R", scales_R)

    def is_for_core(self, dtype: torch.dtype) -> bool:
        """Whether the native core reads the rows as they lie, and they have this type."""
        where = {part.device.type for part in (self.codes_RD, self.scales_R)}
        return where == {"cpu"} and self.dtype == dtype and self.scales_R.dtype == torch.float32

    def forward(self, rows: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """Rows by their numbers, in the type that the table had."""
        return restore_rows(self.codes_RD[rows], self.scales_R[rows]).to(self.dtype)

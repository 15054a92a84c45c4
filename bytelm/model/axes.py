"""The axes of a body: one small config each. Importable without torch; each counts its own parameters."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from bytelm.config import Config

Wiring = Literal["sequential", "parallel"]
"""Attention, then feed-forward, each with a norm of its own; or side by side on one norm."""


@dataclass(frozen=True, kw_only=True)
class NormConfig(Config):
    """Normalisation of the residual stream.

    Attributes:
        kind: ``rms``, root mean square (Zhang and Sennrich 2019, arXiv:1910.07467); ``layer``, mean and variance, with
            a bias (Ba et al. 2016, arXiv:1607.06450).
        eps: added to the mean square, or the variance.
    """

    kind: Literal["rms", "layer"] = "rms"
    eps: float = 1e-5

    def validate(self) -> None:
        """Check ``eps``."""
        self.require(self.eps > 0, "eps", "a number > 0")

    def num_parameters(self, width: int) -> int:
        """Parameters of one norm of this width."""
        return width if self.kind == "rms" else 2 * width


@dataclass(frozen=True, kw_only=True)
class RotaryConfig(Config):
    """Rotary positions, half-split pairs.

    Attributes:
        base: the slowest pair turns by ``1 / base`` radians per patch position.
        width: dimensions of each head that turn, even; all for None.
    """

    usual: ClassVar[bool] = True
    kind: Literal["rotary"] = "rotary"
    base: float = 10_000.0
    width: int | None = None

    def validate(self) -> None:
        """Check ``base`` and ``width``."""
        self.require(self.base > 1, "base", "a number > 1")
        self.require(self.width is None or (self.width > 0 and self.width % 2 == 0), "width", "an even number > 0")


@dataclass(frozen=True, kw_only=True)
class AlibiConfig(Config):
    """A penalty on attention scores that grows with the distance (Press et al. 2022, arXiv:2108.12409).

    Attributes:
        shrink: slopes are divided by this: how much longer the context is than in training.
        trained: positions that training had; where given, the slopes of a later position are divided by its own
            number over this.
    """

    kind: Literal["alibi"] = "alibi"
    shrink: float = 1.0
    trained: int | None = None

    def validate(self) -> None:
        """Check ``shrink`` and ``trained``."""
        self.require(self.shrink >= 1, "shrink", "a number of at least 1")
        self.require(self.trained is None or self.trained > 0, "trained", "a number > 0")


@dataclass(frozen=True, kw_only=True)
class LearnedPositionsConfig(Config):
    """One learned vector for each position of the context, added to the embedding."""

    kind: Literal["learned"] = "learned"


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(Config):
    """Grouped-query attention.

    Attributes:
        num_heads: H, query heads.
        num_kv_heads: G, key/value heads; divides H.
        head_width: E, even.
        bias: whether queries, keys and values have one.
        output_bias: whether the output has one.
        scale: scores are divided by ``sqrt(E)`` or by ``E`` (muP; Yang et al. 2022, arXiv:2203.03466).
    """

    num_heads: int
    num_kv_heads: int
    head_width: int
    bias: bool = False
    output_bias: bool = False
    scale: Literal["root", "width"] = "root"

    def validate(self) -> None:
        """Check that G divides H and that E is even."""
        self.require(self.num_heads > 0, "num_heads", "a number > 0")
        self.require(
            self.num_kv_heads > 0 and self.num_heads % self.num_kv_heads == 0,
            "num_kv_heads",
            f"a divisor of num_heads = {self.num_heads}",
        )
        self.require(self.head_width > 0 and self.head_width % 2 == 0, "head_width", "an even number > 0")

    def num_parameters(self, width: int) -> int:
        """Parameters of one attention layer."""
        weights = 2 * width * self.head_width * (self.num_heads + self.num_kv_heads)
        bias = self.head_width * (self.num_heads + 2 * self.num_kv_heads) if self.bias else 0
        return weights + bias + (width if self.output_bias else 0)


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig(Config):
    """Feed-forward layer.

    Attributes:
        kind: ``swiglu`` (Shazeer 2020, arXiv:2002.05202); ``gelu``, two layers with the tanh form of GELU between.
        inner: F.
        bias: of all layers; ``gelu`` always has it.
    """

    kind: Literal["swiglu", "gelu"] = "swiglu"
    inner: int
    bias: bool = False

    def validate(self) -> None:
        """Check ``inner`` and ``bias``."""
        self.require(self.inner > 0, "inner", "a number > 0")
        self.require(self.bias or self.kind != "gelu", "bias", "true, which kind 'gelu' always has")

    def num_parameters(self, width: int) -> int:
        """Parameters of one feed-forward layer."""
        wide = 2 if self.kind == "swiglu" else 1
        return (wide + 1) * width * self.inner + (wide * self.inner + width if self.bias else 0)


@dataclass(frozen=True, kw_only=True)
class MatchConfig(Config):
    """Rows for the symbols that followed the longest matches of the end of a text (:class:`bytelm.nn.matches.Matches`).

    Attributes:
        lengths: ascending; each has rows of its own, which matches read that are at least as long, but shorter than the
            next one. Shorter ones than the first do not count, and no more symbols than the last are compared.
        candidates: how many symbols are looked for.
        reach: how many symbols before the patch that is predicted are looked at.
        symbols: rows of each length; symbol s has row ``s % symbols``.
    """

    LONGEST: ClassVar[int] = 64
    MOST: ClassVar[int] = 8

    lengths: tuple[int, ...] = (3, 4, 5, 6, 8, 12, 16, 32)
    candidates: int = 2
    reach: int = 1024
    symbols: int = 256

    def validate(self) -> None:
        """Check the ranges."""
        ascending = all(a < b for a, b in zip(self.lengths, self.lengths[1:], strict=False))
        within = bool(self.lengths) and ascending and self.lengths[0] > 0 and self.lengths[-1] <= self.LONGEST
        self.require(within, "lengths", f"ascending numbers from 1 to {self.LONGEST}")
        self.require(0 < self.candidates <= self.MOST, "candidates", f"a number from 1 to {self.MOST}")
        self.require(self.reach > self.lengths[0], "reach", f"a number > {self.lengths[0]}, the first of the lengths")
        self.require(self.symbols > 0, "symbols", "a number > 0")

    @property
    def num_rows(self) -> int:
        """Rows of all candidates; one of each is for none."""
        return self.candidates * (1 + len(self.lengths) * self.symbols)


@dataclass(frozen=True, kw_only=True)
class NgramConfig(Config):
    """Tables of the n-grams of symbols.

    Attributes:
        orders: the n. One longer than a patch reads the windows before.
        rows: rows per table; of chosen n-grams, for each order on the mean.
        row_width: numbers of a row, whose sum is then projected to the width of the model; by default rows are as wide
            as the model, and there is no projection.
        chosen: whether rows belong to those n-grams of the training text after which they help most
            (:mod:`bytelm.training.ngram_choice`), one each, all others of an order sharing one. Else every n-gram has
            the row that its hash says, which many share.
        matches: rows beside them; none by default.
    """

    orders: tuple[int, ...] = (2, 3, 4)
    rows: int = 32_768
    row_width: int | None = None
    chosen: bool = False
    matches: MatchConfig | None = None

    def validate(self) -> None:
        """Check that orders are distinct and positive."""
        distinct = len(set(self.orders)) == len(self.orders)
        self.require(bool(self.orders) and distinct and min(self.orders) > 0, "orders", "distinct numbers > 0")
        self.require(self.rows > 0, "rows", "a number > 0")
        self.require(self.rows > 1 or not self.chosen, "rows", "a number > 1 for chosen n-grams")
        self.require(self.row_width is None or self.row_width > 0, "row_width", "a number > 0")

    def row_numbers(self, width: int) -> int:
        """Numbers of a row in a model of this width."""
        return self.row_width or width

    def num_products(self, width: int) -> int:
        """Weights of the projection, multiplied once where rows are read."""
        return self.row_width * width if self.row_width else 0

    def num_in_rows(self, width: int) -> int:
        """Numbers of all rows of one set of tables."""
        rows = len(self.orders) * self.rows + (self.matches.num_rows if self.matches else 0)
        return rows * self.row_numbers(width)

    @property
    def num_read(self) -> int:
        """Rows that are read at a position."""
        return len(self.orders) + (self.matches.candidates if self.matches else 0)

    @property
    def num_seen(self) -> int:
        """Symbols that are looked at."""
        return max(*self.orders, self.matches.reach if self.matches else 0)

    def num_parameters(self, width: int) -> int:
        """Parameters of one set of tables and its projection."""
        return self.num_in_rows(width) + self.num_products(width)


PositionConfig = RotaryConfig | AlibiConfig | LearnedPositionsConfig

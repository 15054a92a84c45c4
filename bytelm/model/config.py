"""What a byte model is made of: one small config per axis. Importable without torch; counts its own parameters."""

from dataclasses import dataclass
from typing import Literal

from bytelm.config import Config
from bytelm.errors import ConfigError

Law = Literal["product", "chain", "next"]


@dataclass(frozen=True, kw_only=True)
class NormConfig(Config):
    """Normalisation of the residual stream.

    Attributes:
        kind: ``rms``, root mean square (Zhang and Sennrich 2019, arXiv:1910.07467).
        eps: added to the mean square.
    """

    kind: Literal["rms"] = "rms"
    eps: float = 1e-5

    def validate(self) -> None:
        """Check ``eps``."""
        self.require(self.eps > 0, "eps", "a number > 0")

    def num_parameters(self, width: int) -> int:
        """Parameters of one norm of this width."""
        return width


@dataclass(frozen=True, kw_only=True)
class RotaryConfig(Config):
    """Rotary positions on every dimension of a head, half-split pairs.

    Attributes:
        base: the slowest pair turns by ``1 / base`` radians per patch position.
    """

    kind: Literal["rotary"] = "rotary"
    base: float = 10_000.0

    def validate(self) -> None:
        """Check ``base``."""
        self.require(self.base > 1, "base", "a number > 1")


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(Config):
    """Grouped-query attention.

    Attributes:
        num_heads: H, query heads.
        num_kv_heads: G, key/value heads; divides H.
        head_width: E, even.
    """

    num_heads: int
    num_kv_heads: int
    head_width: int

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
        return 2 * width * self.head_width * (self.num_heads + self.num_kv_heads)


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig(Config):
    """Feed-forward layer.

    Attributes:
        kind: ``swiglu`` (Shazeer 2020, arXiv:2002.05202).
        inner: F.
    """

    kind: Literal["swiglu"] = "swiglu"
    inner: int

    def validate(self) -> None:
        """Check ``inner``."""
        self.require(self.inner > 0, "inner", "a number > 0")

    def num_parameters(self, width: int) -> int:
        """Parameters of one feed-forward layer."""
        return 3 * width * self.inner


@dataclass(frozen=True, kw_only=True)
class NgramConfig(Config):
    """Hashed byte-n-gram tables.

    Attributes:
        orders: the n, each from 1 to the patch size, so that the bytes of one window are enough.
        rows: rows per table.
    """

    orders: tuple[int, ...] = (2, 3, 4)
    rows: int = 32_768

    def validate(self) -> None:
        """Check that orders are distinct and positive."""
        distinct = len(set(self.orders)) == len(self.orders)
        self.require(bool(self.orders) and distinct and min(self.orders) > 0, "orders", "distinct numbers > 0")
        self.require(self.rows > 0, "rows", "a number > 0")

    def num_parameters(self, width: int) -> int:
        """Parameters of one set of tables."""
        return len(self.orders) * self.rows * width


@dataclass(frozen=True, kw_only=True)
class MergerConfig(Config):
    """How P byte embeddings become one position.

    Attributes:
        kind: ``concat``: concatenate and project.
        byte_width: width of a byte embedding.
        tables: n-gram tables read at the last byte of each window; none by default.
    """

    kind: Literal["concat"] = "concat"
    byte_width: int
    tables: NgramConfig | None = None

    def validate(self) -> None:
        """Check ``byte_width``."""
        self.require(self.byte_width > 0, "byte_width", "a number > 0")

    def num_parameters(self, vocab_size: int, patch: int, width: int) -> int:
        """Parameters of embedding, projection and tables."""
        plain = vocab_size * self.byte_width + patch * self.byte_width * width
        return plain + (self.tables.num_parameters(width) if self.tables else 0)


@dataclass(frozen=True, kw_only=True)
class IndependentHeadsConfig(Config):
    """K linear heads on the state alone."""

    kind: Literal["independent"] = "independent"

    @property
    def laws(self) -> tuple[Law, ...]:
        """Laws these heads define, the default first."""
        return ("product", "next")

    def num_parameters(self, vocab_size: int, patch: int, width: int, norm: NormConfig) -> int:
        """Parameters of all heads."""
        return patch * width * vocab_size


@dataclass(frozen=True, kw_only=True)
class ChainedHeadsConfig(Config):
    """K heads that also see the bytes of the patch before theirs.

    Attributes:
        byte_width: width of the heads' own byte embeddings.
        inner: inner width of each head's MLP.
        tables: n-gram tables read just before each head's byte, shared by the heads; none by default.
    """

    kind: Literal["chained"] = "chained"
    byte_width: int = 64
    inner: int = 256
    tables: NgramConfig | None = None

    def validate(self) -> None:
        """Check the widths."""
        self.require(self.byte_width > 0, "byte_width", "a number > 0")
        self.require(self.inner > 0, "inner", "a number > 0")

    @property
    def laws(self) -> tuple[Law, ...]:
        """Laws these heads define, the default first."""
        return ("chain", "next")

    def num_parameters(self, vocab_size: int, patch: int, width: int, norm: NormConfig) -> int:
        """Parameters of embedding, MLPs, norm, unembeddings and tables."""
        mlps = sum(self.inner * (2 * width + j * self.byte_width) for j in range(1, patch))
        plain = vocab_size * self.byte_width + mlps + norm.num_parameters(width) + patch * width * vocab_size
        return plain + (self.tables.num_parameters(width) if self.tables else 0)


@dataclass(frozen=True, kw_only=True)
class NextPatchConfig(Config):
    """A guess of the state after the next patch, from which chained heads draft it.

    Attributes:
        byte_width: width of the module's own byte embeddings.
        inner: F of its feed-forward layer.
        depth: patches ahead that it is trained to guess, each from its guess before.
    """

    byte_width: int = 64
    inner: int = 512
    depth: int = 2

    def validate(self) -> None:
        """Check the widths and the depth."""
        self.require(self.byte_width > 0, "byte_width", "a number > 0")
        self.require(self.inner > 0, "inner", "a number > 0")
        self.require(self.depth > 0, "depth", "a number > 0")

    @property
    def merger(self) -> MergerConfig:
        """How the bytes of the patch become one vector."""
        return MergerConfig(byte_width=self.byte_width)

    @property
    def feedforward(self) -> FeedForwardConfig:
        """The feed-forward layer."""
        return FeedForwardConfig(inner=self.inner)

    def num_parameters(self, vocab_size: int, patch: int, width: int, norm: NormConfig) -> int:
        """Parameters of merger, mix, feed-forward and four norms."""
        merger = self.merger.num_parameters(vocab_size, patch, width)
        mix = 2 * width * width
        return merger + mix + self.feedforward.num_parameters(width) + 4 * norm.num_parameters(width)


HeadsConfig = IndependentHeadsConfig | ChainedHeadsConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """A byte model.

    Attributes:
        width: D.
        num_blocks: residual blocks of the body.
        context: L, the most bytes the model reads at once; a multiple of ``patch``.
        patch: P, bytes per position, and K, the number of heads.
        vocab_size: V, byte values.
        next_patch: drafts the patches after the next one; for chained heads, none by default.
    """

    width: int
    num_blocks: int
    attention: AttentionConfig
    feedforward: FeedForwardConfig
    merger: MergerConfig
    heads: HeadsConfig
    position: RotaryConfig = RotaryConfig()
    norm: NormConfig = NormConfig()
    context: int = 11_520
    patch: int = 4
    vocab_size: int = 256
    next_patch: NextPatchConfig | None = None

    def validate(self) -> None:
        """Check the sizes against each other."""
        self.require(self.width > 0, "width", "a number > 0")
        self.require(self.num_blocks > 0, "num_blocks", "a number > 0")
        self.require(self.patch > 0, "patch", "a number > 0")
        self.require(
            self.context >= self.patch and self.context % self.patch == 0,
            "context",
            f"a multiple of patch = {self.patch}",
        )
        self.require(self.vocab_size == 256, "vocab_size", "256, the byte values")
        if self.next_patch is not None and not isinstance(self.heads, ChainedHeadsConfig):
            raise ConfigError(
                f"heads.kind: found {self.heads.kind!r}, expected 'chained', which next_patch drafts with"
            )
        for name, part in (("merger", self.merger), ("heads", self.heads)):
            tables = getattr(part, "tables", None)
            if tables is not None and max(tables.orders) > self.patch:
                raise ConfigError(
                    f"{name}.tables.orders: found {tables.orders!r}, expected numbers of at most patch = {self.patch}"
                )

    @property
    def laws(self) -> tuple[Law, ...]:
        """Laws the model can be asked for, the default first."""
        return self.heads.laws

    def num_body_parameters(self) -> int:
        """Parameters of the blocks and the last norm: those that do matrix work at every patch position."""
        norm = self.norm.num_parameters(self.width)
        block = self.attention.num_parameters(self.width) + self.feedforward.num_parameters(self.width) + 2 * norm
        return self.num_blocks * block + norm

    def num_parameters(self) -> int:
        """All parameters."""
        merger = self.merger.num_parameters(self.vocab_size, self.patch, self.width)
        sizes = (self.vocab_size, self.patch, self.width, self.norm)
        heads = self.heads.num_parameters(*sizes)
        next_patch = 0 if self.next_patch is None else self.next_patch.num_parameters(*sizes)
        return merger + self.num_body_parameters() + heads + next_patch

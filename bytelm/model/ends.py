"""What stands before and behind the blocks of a body: from symbols to positions, and from states to laws."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from bytelm.config import Config
from bytelm.model.axes import FeedForwardConfig, NgramConfig, NormConfig

Law = Literal["product", "chain", "next"]


@dataclass(frozen=True, kw_only=True)
class MergerConfig(Config):
    """How P byte embeddings become one position.

    Attributes:
        kind: ``concat``: concatenate and project.
        byte_width: width of a byte embedding.
        tables: n-gram tables read at the last byte of each window; none by default.
    """

    usual: ClassVar[bool] = True
    kind: Literal["concat"] = "concat"
    byte_width: int
    tables: NgramConfig | None = None

    def validate(self) -> None:
        """Check ``byte_width``."""
        self.require(self.byte_width > 0, "byte_width", "a number > 0")

    def num_products(self, patch: int, width: int) -> int:
        """Weights of matrices, each of which is multiplied once at every position."""
        return patch * self.byte_width * width + (self.tables.num_products(width) if self.tables else 0)

    def num_parameters(self, vocab_size: int, patch: int, width: int) -> int:
        """Parameters of embedding, matrices and tables."""
        plain = vocab_size * self.byte_width + self.num_products(patch, width)
        return plain + (self.tables.num_in_rows(width) if self.tables else 0)


@dataclass(frozen=True, kw_only=True)
class MLPMergerConfig(MergerConfig):
    """``concat`` and, added to it, a layer that sees the bytes of a window together before they become one vector.

    Attributes:
        kind: ``mlp``: concatenate, project, and add ``down(silu(up(x)))``.
        inner: width between ``up`` and ``down``.
    """

    usual: ClassVar[bool] = False
    kind: Literal["mlp"] = "mlp"  # type: ignore[assignment] # one of the two, told apart by it
    inner: int

    def validate(self) -> None:
        """Check the widths."""
        super().validate()
        self.require(self.inner > 0, "inner", "a number > 0")

    def num_products(self, patch: int, width: int) -> int:
        """Weights of matrices, each of which is multiplied once at every position."""
        return super().num_products(patch, width) + self.inner * (patch * self.byte_width + width)


@dataclass(frozen=True, kw_only=True)
class TokenEmbeddingConfig(Config):
    """One vector per symbol, for models of P = 1.

    Attributes:
        num_rows: rows of the table, at least as many as symbols.
        scale: of the vectors.
        tables: tables of the n-grams of tokens that end at each one; none by default.
    """

    kind: Literal["token"] = "token"
    num_rows: int
    scale: float = 1.0
    tables: NgramConfig | None = None

    def validate(self) -> None:
        """Check ``num_rows``."""
        self.require(self.num_rows > 0, "num_rows", "a number > 0")

    def num_parameters(self, vocab_size: int, patch: int, width: int) -> int:
        """Parameters of the table, and of those of n-grams."""
        return self.num_rows * width + (self.tables.num_parameters(width) if self.tables else 0)


@dataclass(frozen=True, kw_only=True)
class LMHeadConfig(Config):
    """One linear head, for models of P = K = 1.

    Attributes:
        num_rows: rows of its table.
        bias: whether it has one.
        scale: of the logits.
        tied: whether its table is that of the embedding.
        tables: tables of the n-grams of tokens that end at each one, added to its state before the last norm; none by
            default.
        mixed: whether an MLP reads state and rows, too, as those of chained heads that mix. Else rows are only added.
        inner: inner width of that MLP.
    """

    kind: Literal["lm"] = "lm"
    num_rows: int
    bias: bool = False
    scale: float = 1.0
    tied: bool = False
    tables: NgramConfig | None = None
    mixed: bool = False
    inner: int = 256

    def validate(self) -> None:
        """Check what belongs to the MLP."""
        self.require(self.inner > 0, "inner", "a number > 0")
        self.require(self.tables is not None or not self.mixed, "mixed", "false where there are no tables")

    @property
    def laws(self) -> tuple[Law, ...]:
        """The law of the next symbol."""
        return ("next",)

    def mlp_inputs(self, width: int) -> int:
        """How many numbers the MLP reads; 0 where there is none."""
        return width + self.tables.row_numbers(width) if self.mixed and self.tables is not None else 0

    def num_products(self, width: int) -> int:
        """Weights of matrix products: of the unembedding, the projection of rows and the MLP."""
        inputs = self.mlp_inputs(width)
        projection = self.tables.num_products(width) if self.tables else 0
        return self.num_rows * width + projection + (self.inner * (inputs + width) if inputs else 0)

    def num_parameters(self, vocab_size: int, patch: int, width: int, norm: NormConfig) -> int:
        """Parameters of unembedding, bias, tables and MLP; a tied table counts where the embedding is."""
        plain = (0 if self.tied else self.num_rows * width) + (self.num_rows if self.bias else 0)
        inputs = self.mlp_inputs(width)
        mlp = norm.num_parameters(width) + self.inner * (inputs + width) if inputs else 0
        return plain + mlp + (self.tables.num_parameters(width) if self.tables else 0)


@dataclass(frozen=True, kw_only=True)
class IndependentHeadsConfig(Config):
    """K linear heads on the state alone. They cannot share a matrix: all would predict the same."""

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
        mixed: whether the MLPs read the rows of n-grams, too; the first head has one then. Else they are only added to
            the state.
        unembedding: ``own``: one for each head; ``shared``: one for all (Gloeckle et al. 2024, arXiv:2404.19737,
            section 2).
    """

    kind: Literal["chained"] = "chained"
    byte_width: int = 64
    inner: int = 256
    tables: NgramConfig | None = None
    mixed: bool = False
    unembedding: Literal["own", "shared"] = "own"

    def validate(self) -> None:
        """Check the widths."""
        self.require(self.byte_width > 0, "byte_width", "a number > 0")
        self.require(self.inner > 0, "inner", "a number > 0")
        self.require(self.tables is not None or not self.mixed, "mixed", "false where there are no tables")

    @property
    def laws(self) -> tuple[Law, ...]:
        """Laws these heads define, the default first."""
        return ("chain", "next")

    def num_unembeddings(self, patch: int) -> int:
        """Unembeddings of ``patch`` heads."""
        return patch if self.unembedding == "own" else 1

    def mlp_inputs(self, patch: int, width: int) -> list[int]:
        """How many numbers the MLP of each head reads, of those heads that have one."""
        rows = self.tables.row_numbers(width) if self.mixed and self.tables is not None else 0
        return [width + j * self.byte_width + rows for j in range(0 if self.mixed else 1, patch)]

    def num_parameters(self, vocab_size: int, patch: int, width: int, norm: NormConfig) -> int:
        """Parameters of embedding, MLPs, norm, unembeddings and tables."""
        mlps = sum(self.inner * (width + inputs) for inputs in self.mlp_inputs(patch, width))
        unembeddings = self.num_unembeddings(patch) * width * vocab_size
        plain = vocab_size * self.byte_width + mlps + norm.num_parameters(width) + unembeddings
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


@dataclass(frozen=True, kw_only=True)
class DraftHeadsConfig(Config):
    """Medusa heads, which guess the tokens after the next one, for models with an LM head.

    Attributes:
        num_heads: K, tokens that they guess beyond the one that the LM head predicts.
        unembedding: ``shared``: that of the LM head, so that a head has D * D parameters; ``own``: one for each head.
    """

    num_heads: int = 4
    unembedding: Literal["shared", "own"] = "shared"

    def validate(self) -> None:
        """Check ``num_heads``."""
        self.require(self.num_heads > 0, "num_heads", "a number > 0")

    def num_parameters(self, vocab_size: int, width: int, lm_head: LMHeadConfig) -> int:
        """Parameters of all heads."""
        own = vocab_size * (width + lm_head.bias) if self.unembedding == "own" else 0
        return self.num_heads * (width * width + own)


HeadsConfig = IndependentHeadsConfig | ChainedHeadsConfig | LMHeadConfig

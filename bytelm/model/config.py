"""What a model is made of: one small config per axis. Importable without torch; counts its own parameters."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bytelm.config import Config
from bytelm.errors import ConfigError
from bytelm.model.axes import (
    AlibiConfig,
    AttentionConfig,
    FeedForwardConfig,
    NgramConfig,
    NormConfig,
    PositionConfig,
    RotaryConfig,
    Wiring,
)

Law = Literal["product", "chain", "next"]

PromptAttention = Literal["causal", "prefix"]
"""What the positions of a prompt see: those before them, or the whole prompt."""


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


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """A model of bytes, or of tokens where P = K = 1.

    Attributes:
        width: D.
        num_blocks: residual blocks of the body.
        wiring: of a block.
        prompt: what the positions of a prompt see: those before them, or (``prefix``) the whole prompt.
        context: L, the most symbols the model reads at once; a multiple of ``patch``.
        patch: P, symbols per position, and K, the number of heads.
        vocab_size: V, byte values, or tokens.
        next_patch: drafts the patches after the next one; for chained heads, none by default.
        draft_heads: draft the tokens after the next one; for an LM head, none by default.
    """

    width: int
    num_blocks: int
    attention: AttentionConfig
    feedforward: FeedForwardConfig
    merger: MergerConfig | MLPMergerConfig | TokenEmbeddingConfig
    heads: HeadsConfig
    position: PositionConfig = field(default_factory=RotaryConfig)
    norm: NormConfig = field(default_factory=NormConfig)
    wiring: Wiring = "sequential"
    prompt: PromptAttention = "causal"
    context: int = 11_520
    patch: int = 4
    vocab_size: int = 256
    next_patch: NextPatchConfig | None = None
    draft_heads: DraftHeadsConfig | None = None

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
        self._check_vocabulary()
        self._check_position()
        if self.next_patch is not None and not isinstance(self.heads, ChainedHeadsConfig):
            raise ConfigError(
                f"heads.kind: found {self.heads.kind!r}, expected 'chained', which next_patch drafts with"
            )
        if self.draft_heads is not None and not isinstance(self.heads, LMHeadConfig):
            raise ConfigError(f"heads.kind: found {self.heads.kind!r}, expected 'lm', beside which draft_heads draft")

    def _check_vocabulary(self) -> None:
        """Tokens come one at a time, with a table and a head that have a row for each; bytes are 256."""
        parts = (self.merger, self.heads)
        tables = [part for part in parts if isinstance(part, TokenEmbeddingConfig | LMHeadConfig)]
        if not tables:
            self.require(self.vocab_size == 256, "vocab_size", "256, the byte values")
            self.require(self.prompt == "causal", "prompt", "'causal', for windows of bytes")
            return
        if len(tables) < 2:
            raise ConfigError(
                f"heads.kind: found {self.heads.kind!r} with merger {self.merger.kind!r}, expected 'lm' with 'token'"
            )
        self.require(self.patch == 1, "patch", "1, for tokens")
        fewest = min(table.num_rows for table in tables)
        self.require(0 < self.vocab_size <= fewest, "vocab_size", f"at most {fewest}, the rows of the tables")

    def _check_position(self) -> None:
        heads, width = self.attention.num_heads, self.attention.head_width
        match self.position:
            case RotaryConfig(width=turned) if turned is not None and turned > width:
                raise ConfigError(f"position.width: found {turned}, expected at most head_width = {width}")
            case AlibiConfig() if heads & (heads - 1):
                raise ConfigError(f"attention.num_heads: found {heads}, expected a power of two for alibi")
            case RotaryConfig() | AlibiConfig():
                return
        if not isinstance(self.merger, TokenEmbeddingConfig):
            raise ConfigError(f"position.kind: found {self.position.kind!r}, expected 'rotary' or 'alibi' for bytes")

    @property
    def laws(self) -> tuple[Law, ...]:
        """Laws the model can be asked for, the default first. With one head they are all the same: that of the next
        symbol.
        """
        return ("next",) if self.patch == 1 else self.heads.laws

    @property
    def num_windows_before(self) -> int:
        """Windows before its own that a position reads: some where an n-gram is longer than a patch, or a match may be
        anywhere.
        """
        return max(self.num_windows_before_body, self.num_windows_before_heads)

    @property
    def num_windows_before_body(self) -> int:
        """Those of them that make its state."""
        merger = self._windows_before(getattr(self.merger, "tables", None))
        return max(merger, self._windows_before(self.heads.tables) if isinstance(self.heads, LMHeadConfig) else 0)

    @property
    def num_windows_before_heads(self) -> int:
        """Those of them that chained heads read."""
        return self._windows_before(self.heads.tables) if isinstance(self.heads, ChainedHeadsConfig) else 0

    def _windows_before(self, tables: NgramConfig | None) -> int:
        return 0 if tables is None else max(0, -(-tables.num_seen // self.patch) - 1)

    def num_body_parameters(self) -> int:
        """Parameters of the blocks and the last norm: those that do matrix work at every patch position."""
        norm = self.norm.num_parameters(self.width)
        norms = norm if self.wiring == "parallel" else 2 * norm
        block = self.attention.num_parameters(self.width) + self.feedforward.num_parameters(self.width) + norms
        return self.num_blocks * block + norm

    def num_parameters(self) -> int:
        """All parameters."""
        merger = self.merger.num_parameters(self.vocab_size, self.patch, self.width)
        sizes = (self.vocab_size, self.patch, self.width, self.norm)
        heads = self.heads.num_parameters(*sizes)
        drafts = 0 if self.next_patch is None else self.next_patch.num_parameters(*sizes)
        if self.draft_heads is not None and isinstance(self.heads, LMHeadConfig):
            drafts += self.draft_heads.num_parameters(self.vocab_size, self.width, self.heads)
        merger += self.context * self.width if self.position.kind == "learned" else 0
        return merger + self.num_body_parameters() + heads + drafts

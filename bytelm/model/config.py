"""What a model is made of: one small config per axis. Importable without torch; counts its own parameters."""

from dataclasses import dataclass, field
from typing import Literal

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
from bytelm.model.ends import (
    ChainedHeadsConfig,
    DraftHeadsConfig,
    HeadsConfig,
    Law,
    LMHeadConfig,
    MergerConfig,
    MLPMergerConfig,
    NextPatchConfig,
    TokenEmbeddingConfig,
)

PromptAttention = Literal["causal", "prefix"]
"""What the positions of a prompt see: those before them, or the whole prompt."""


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

"""What autograd keeps of a forward pass for the backward pass: bytes by formula, from a config.

Counted are the tensors that the operations of our modules save, as torch's derivatives define them, each storage once;
weights are not among them. Per patch position, with ``a`` bytes per result of a matrix product (4 in ``32-true``, else
2), ``s`` per number of the residual stream (``a``; 4 where n-gram rows of float32 are added to it) and 4 per number
that is held in float32:

- RMS norm of width D: the input in float32, ``1 / rms``, the quotient before the weight: ``4 D + 4 + s D``. Layer norm:
  its input, mean and deviation: ``4 D + 8`` (``2 D + 8`` in ``bf16-true``; so it is under autocast on the CPU, too).
- A matrix product: its input. So each norm is followed by another ``a D``, for each product that reads it.
- Attention: the product that has queries, keys and values, of which values stay a view: ``a E (H + 2 G)``; turned
  queries and keys: ``a E (H + G)``; the output, which the next product reads: ``a E H``; the log-sum-exp of the scores:
  ``4 H`` (Dao 2023, arXiv:2307.08691, section 3.1: no score is kept). With ALiBi, whose mask the fused kernels do not
  take: queries, keys and values of all H heads, and the shares of all T keys, in float32, ``4 (3 E H + H T)``; and the
  output, ``a E H``.
- SwiGLU: gate and up, ``silu(gate)``, and their product: ``4 a F``. GELU: its input and its output: ``2 a F``.
- Merger: ids as int64, ``8 P``; the embeddings that it projects, ``a P byte_width``; ids of rows, 8 for each table; of
  kind ``mlp`` also ``2 a inner``. Where rows are projected, here and in heads, the sum of rows, ``a row_width``.
- Chained head j: its own norm and the input of its unembedding; where it has an MLP, what that reads, ``a (D + (j - 1)
  byte_width)`` and, of heads that mix, ``a row_width``, and ``2 a inner``. Independent heads: the state, ``a D``. An LM
  head: the same, and where it mixes, its own norm and what the MLP of a first chained head has.
- Loss: the log-softmax in float32, ``4 K V``; the targets as int64, ``8 K``.
- Next patch, per guess: the same from its parts. Its heads have frozen weights, which save less: see the code.

What is a cast of a weight is not here but in :func:`matrix_parameters`, 2 bytes each under autocast. It is checked
against ``torch.autograd.graph.saved_tensors_hooks`` on the CPU, whose fused attention saves what that of CUDA does.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from bytelm.benchmarks.operations import head_products, operations_per_symbol
from bytelm.errors import ConfigError
from bytelm.model.config import AlibiConfig, FeedForwardConfig, ModelConfig, NgramConfig, RotaryConfig
from bytelm.model.ends import (
    ChainedHeadsConfig,
    IndependentHeadsConfig,
    LMHeadConfig,
    MergerConfig,
    MLPMergerConfig,
    NextPatchConfig,
    TokenEmbeddingConfig,
)

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"]
"""``trainer.precision``: float32; float32 weights under autocast (16-mixed is counted as bf16-mixed); bfloat16."""

_IDS, _FLOAT = 8, 4


def check_precision(name: str) -> Precision:
    """The name of a precision.

    Raises:
        ConfigError: it is none of them.
    """
    for precision in get_args(Precision):
        if name == precision:
            return precision
    raise ConfigError(f"found {name!r}, expected one of {', '.join(get_args(Precision))}")


def product_bytes(precision: Precision) -> int:
    """Bytes per number of a matrix product."""
    return 4 if precision == "32-true" else 2


def stored_bytes(precision: Precision) -> int:
    """Bytes per weight; gradients and the moments of AdamW have the same."""
    return 2 if precision == "bf16-true" else 4


def matrix_parameters(config: ModelConfig) -> int:
    """Weights of matrix products: all of them but embeddings, tables, norms and biases."""
    products = operations_per_symbol(config, config.laws[0], 0) * config.patch / 2
    match config.heads:
        case ChainedHeadsConfig(tables=NgramConfig() as tables):  # one projection, which every head uses
            products -= (config.patch - 1) * tables.num_products(config.width)
    ahead = 0 if config.next_patch is None else _next_patch_matrices(config, config.next_patch)
    return round(products) + ahead


def next_patch_products(config: ModelConfig) -> tuple[int, int]:
    """Multiplications of one position's guesses, all depths: with weights that learn, and with frozen ones."""
    if config.next_patch is None:
        return 0, 0
    depth = config.next_patch.depth
    return depth * _next_patch_matrices(config, config.next_patch), depth * head_products(config, config.laws[0])


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes that autograd keeps of one forward over B windows of T positions; see the module's text for the formulas.

    Attributes:
        config: of the model.
        positions: T of each window.
        windows: B.
        precision: of training.
    """

    config: ModelConfig
    positions: int
    windows: int
    precision: Precision

    def block(self) -> int:
        """One block of the body."""
        attention, width, a = self.config.attention, self.config.width, self._product
        queries, keys = (n * attention.head_width for n in (attention.num_heads, attention.num_kv_heads))
        turned = queries + keys if isinstance(self.config.position, RotaryConfig) else 0
        attend = a * (queries + 2 * keys + turned + queries) + _FLOAT * attention.num_heads
        if isinstance(self.config.position, AlibiConfig):
            attend = _FLOAT * (3 * queries + attention.num_heads * self.positions) + a * queries
        inside = attend + self._feedforward(self.config.feedforward)
        if self.config.wiring == "sequential":
            outside = 2 * (self._norm(self._stream) + a * width)
        else:  # one norm for two products, each of which casts it under autocast
            outside = self._norm(self._stream) + (2 if self._autocast else 1) * a * width
        return self.windows * self.positions * (inside + outside)

    def block_input(self) -> int:
        """What activation checkpointing keeps of one block."""
        return self.windows * self.positions * self._stream * self.config.width

    def block_gradients(self) -> int:
        """What the backward pass of a block has beside what is kept of it: gradients inside the feed-forward layer."""
        layers = 2 if self.config.feedforward.kind == "swiglu" else 1
        return self.windows * self.positions * layers * self._product * self.config.feedforward.inner

    def rest(self) -> int:
        """Merger, positions, last norm, heads, next patch and loss."""
        config, rows = self.config, self.windows * self.positions
        ids = self.windows * (self.positions + 1) * config.patch * _IDS
        angles = 0
        if isinstance(config.position, RotaryConfig):
            angles = 2 * _FLOAT * self.positions * (config.position.width or config.attention.head_width)
        each = self._merger() + self._norm(self._stream) + self._heads() + self._loss()
        return ids + angles + rows * each + self._next_patch()

    def total(self) -> int:
        """All that is kept without activation checkpointing."""
        return self.config.num_blocks * self.block() + self.rest()

    def logits(self) -> int:
        """Logits of all heads, of which there is one more copy in float32 where they are in 16 bits."""
        copies = self._product if self._product == _FLOAT else self._product + _FLOAT
        return self._num_logits() * copies

    def loss_gradients(self) -> int:
        """Where the backward pass begins: gradients of log-softmax and of logits, in float32."""
        return self._num_logits() * 2 * _FLOAT

    @property
    def _product(self) -> int:
        return product_bytes(self.precision)

    @property
    def _autocast(self) -> bool:
        return self.precision.endswith("mixed")

    @property
    def _stream(self) -> int:
        """Bytes per number of the residual stream."""
        match self.config.merger:
            case MergerConfig(tables=None | NgramConfig(row_width=int())):
                return self._product
            case MergerConfig() | TokenEmbeddingConfig():
                return stored_bytes(self.precision)

    @property
    def _state(self) -> int:
        """Bytes per number of what a norm gives: weights of float32 make it float32."""
        return stored_bytes(self.precision)

    def _num_logits(self) -> int:
        return self.windows * self.positions * self.config.patch * self.config.vocab_size

    def _norm(self, itemsize: int) -> int:
        """A norm of numbers of this size, without what reads its output."""
        width = self.config.width
        if self.config.norm.kind == "rms":
            return (_FLOAT + itemsize) * width + _FLOAT
        return stored_bytes(self.precision) * width + 2 * _FLOAT

    def _feedforward(self, config: FeedForwardConfig) -> int:
        return (4 if config.kind == "swiglu" else 2) * self._product * config.inner

    def _merger(self) -> int:
        match self.config.merger:
            case MergerConfig(byte_width=byte_width, tables=tables) as merger:
                inputs, inner = 1, 0
                if isinstance(merger, MLPMergerConfig):  # two products read the embeddings, each of which casts them
                    inputs, inner = 2 if self._autocast else 1, merger.inner
                return self._product * (inputs * self.config.patch * byte_width + 2 * inner) + self._rows(tables)
            case TokenEmbeddingConfig(tables=tables):
                return self._rows(tables)

    def _heads(self) -> int:
        width, a = self.config.width, self._product
        heads = self.config.heads
        if isinstance(heads, IndependentHeadsConfig):
            return a * width
        if isinstance(heads, LMHeadConfig):
            inputs = heads.mlp_inputs(width)
            mlp = self._norm(self._stream) + a * (inputs + 2 * heads.inner) if inputs else 0
            return a * width + self._rows(heads.tables) + mlp
        each = self._norm(self._state) + a * width + self._rows(heads.tables)
        mlps = sum(inputs + 2 * heads.inner for inputs in heads.mlp_inputs(self.config.patch, width))
        return self.config.patch * each + a * mlps

    def _rows(self, tables: NgramConfig | None) -> int:
        """What is kept where rows are read."""
        projected = self._product * tables.row_width if tables and tables.row_width else 0
        return _table_ids(tables) + projected

    def _loss(self) -> int:
        return self.config.patch * (_FLOAT * self.config.vocab_size + _IDS)

    def _next_patch(self) -> int:
        """All guesses: guess n has n positions less, and the first one's state has no gradient."""
        config, ahead = self.config, self.config.next_patch
        if ahead is None or not isinstance(config.heads, ChainedHeadsConfig):
            return 0
        a, width, heads = self._product, config.width, config.heads
        norms = self._norm(self._state) + 3 * self._norm(a)  # of state, bytes, mix and guess
        module = a * (config.patch * ahead.byte_width + 2 * width + width) + self._feedforward(ahead.feedforward)
        # Frozen: silu keeps its input, a norm its input in float32 and 1 / rms, products nothing but weights.
        frozen = (
            config.patch * (_FLOAT * width + _FLOAT + _table_ids(heads.tables))
            + a * len(heads.mlp_inputs(config.patch, width)) * heads.inner
        )
        loss = 2 * _FLOAT * config.patch * config.vocab_size
        casts = ahead.depth * head_products(config, config.laws[0]) * a if self._autocast else 0
        rows = sum(self.windows * (self.positions - n) for n in range(1, ahead.depth + 1))
        return rows * (norms + module + frozen + loss) + casts


def _table_ids(tables: NgramConfig | None) -> int:
    return 0 if tables is None else _IDS * tables.num_read


def _next_patch_matrices(config: ModelConfig, ahead: NextPatchConfig) -> int:
    layers = 3 if ahead.feedforward.kind == "swiglu" else 2
    mix = 2 * config.width * config.width
    return config.patch * ahead.byte_width * config.width + mix + layers * config.width * ahead.inner

"""What a model computes, keeps and loads for the symbols of a text: figures of a config, not of a machine."""

from torch import nn

from bytelm.benchmarks.bandwidth import slot_bytes
from bytelm.model.config import ModelConfig
from bytelm.model.ends import (
    ChainedHeadsConfig,
    IndependentHeadsConfig,
    Law,
    LMHeadConfig,
    MergerConfig,
    TokenEmbeddingConfig,
)


def positions_per_symbol(config: ModelConfig, law: Law) -> float:
    """Positions of the body for each symbol: 1 / P under ``product`` and ``chain``; 1 under ``next``, in P streams."""
    return 1.0 if law == "next" else 1 / config.patch


def operations_per_symbol(config: ModelConfig, law: Law, symbols_before: float) -> float:
    """Operations of plain cached decoding for one symbol; a multiplication and an addition are two.

    Counted are matrix products, those of attention included: for a position of the body, with S keys in its stream,
    ``2 * (M + blocks * (2 D E (H + G) + 2 H E S + n D F) + heads)``, where M is the merger's ``P * byte_width * D`` (of
    kind ``mlp`` and ``inner * (P * byte_width + D)``; 0 for tokens), n = 3 for SwiGLU and 2 for GELU, and heads are all
    K under ``product`` and ``chain``, head 1 under ``next``, of an LM head all rows of its table; times
    :func:`positions_per_symbol`. Narrow n-gram rows add ``row_width * D`` to merger and to each head. Norms, biases,
    rotations, softmax and the reading of rows are not counted. It is what ``torch.utils.flop_counter`` counts.

    Args:
        config: of the model.
        law: one that it defines.
        symbols_before: symbols whose keys and values are cached, the symbol's own position included. In each stream
            they are P to a position.
    """
    outside = 2 * (merger_products(config) + head_products(config, law)) * positions_per_symbol(config, law)
    return outside + body_operations_per_symbol(config, law, symbols_before)


def body_operations_per_symbol(config: ModelConfig, law: Law, symbols_before: float) -> float:
    """The part of :func:`operations_per_symbol` that the blocks have: without merger and heads."""
    attention, width = config.attention, config.width
    slots = symbols_before / config.patch
    projections = 2 * width * attention.head_width * (attention.num_heads + attention.num_kv_heads)
    scores = 2 * attention.num_heads * attention.head_width * slots
    layers = 3 if config.feedforward.kind == "swiglu" else 2
    body = config.num_blocks * (projections + scores + layers * width * config.feedforward.inner)
    return 2 * body * positions_per_symbol(config, law)


def cache_bytes(config: ModelConfig, law: Law, symbols: float, itemsize: int) -> float:
    """Bytes of the keys and values that so many symbols leave in the cache, over all blocks and streams.

    Args:
        config: of the model.
        law: under ``next`` every symbol has a position, else every patch.
        symbols: of one row.
        itemsize: bytes per number.
    """
    return symbols * positions_per_symbol(config, law) * slot_bytes(config, itemsize)


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers as they are in memory; what is shared counts once."""
    return sum(tensor.nbytes for tensor in {*model.parameters(), *model.buffers()})


def merger_products(config: ModelConfig) -> int:
    """Multiplications from the symbols of a window to one position."""
    match config.merger:
        case MergerConfig() as merger:
            return merger.num_products(config.patch, config.width)
        case TokenEmbeddingConfig(tables=tables):
            return tables.num_products(config.width) if tables else 0


def head_products(config: ModelConfig, law: Law) -> int:
    """Multiplications of the heads that a law asks at one position."""
    one = config.width * config.vocab_size
    match config.heads:
        case LMHeadConfig() as head:
            return head.num_products(config.width)
        case ChainedHeadsConfig() as heads:
            one += heads.tables.num_products(config.width) if heads.tables else 0
            mlps = [heads.inner * (config.width + inputs) for inputs in heads.mlp_inputs(config.patch, config.width)]
            first = mlps[0] if heads.mixed else 0
            return one + first if law == "next" else config.patch * one + sum(mlps)
        case IndependentHeadsConfig():
            return one if law == "next" else config.patch * one

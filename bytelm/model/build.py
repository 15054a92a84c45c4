"""From a config to modules: the only place that looks at kinds."""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bytelm.heads import ChainedHeads, DraftHeads, IndependentHeads, LMHead, NextPatch, StateMLP
from bytelm.model.axes import (
    AlibiConfig,
    AttentionConfig,
    FeedForwardConfig,
    LearnedPositionsConfig,
    NgramConfig,
    RotaryConfig,
)
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ModelConfig
from bytelm.model.ends import (
    ChainedHeadsConfig,
    DraftHeadsConfig,
    IndependentHeadsConfig,
    LMHeadConfig,
    MergerConfig,
    MLPMergerConfig,
    TokenEmbeddingConfig,
)
from bytelm.nn.attention import Attention
from bytelm.nn.block import ParallelBlock, SequentialBlock
from bytelm.nn.feedforward import GeluMLP, SwiGLU
from bytelm.nn.matches import Matches
from bytelm.nn.merger import ConcatMerger, MLPMerger, TokenEmbedding
from bytelm.nn.ngram import ChosenNgrams, NgramTables
from bytelm.nn.norm import RMSNorm
from bytelm.nn.position import Alibi, Rotary, Unplaced, alibi_slopes

_NOISE = 2**20 + 7
"""Numbers in a block of noise: no multiple of the width of a matrix."""


def build_model(config: ModelConfig, seed: int = 0, device: str | torch.device | None = None) -> ByteLM:
    """A model with fresh weights, a function of ``seed`` alone on a given platform.

    On the meta device the weights are shapes only.
    """
    with torch.device(device if device is not None else torch.get_default_device()):
        blocks = [_block(config, i) for i in range(config.num_blocks)]
        merger, heads = _merger(config, config.merger), _heads(config)
        drafts = _next_patch(config), _draft_heads(config)
        at_states = _state_tables(config), _state_mlp(config)
        model = ByteLM(config, merger, _position(config), blocks, _norm(config), heads, *drafts, *at_states)
    tie_head(model)
    if model.device.type != "meta":
        initialise(model, seed)
    return model


def add_draft_heads(model: ByteLM, config: DraftHeadsConfig, device: str | torch.device | None = None) -> DraftHeads:
    """Give a model untrained draft heads, in float32, in the place of those it may have.

    Args:
        model: of tokens.
        config: of the draft heads.
        device: where they go, by default where the model is; on the meta device they are shapes only.
    Raises:
        ConfigError: the model has no LM head.
    """
    model.config = dataclasses.replace(model.config, draft_heads=config)
    with torch.device(device if device is not None else model.device):
        draft_heads = model.draft_heads = _draft_heads(model.config)
    assert draft_heads is not None
    if not draft_heads.residual.weight.is_meta:
        draft_heads.start_as(model.lm_head)
    return draft_heads


def tie_head(model: ByteLM) -> None:
    """Let the head use the embedding's table where the config says so; to be called again after either was replaced."""
    match model.config.heads, model.heads, model.merger:
        case LMHeadConfig(tied=True), LMHead() as head, TokenEmbedding() as merger:
            head.unembedding.weight = merger.embedding.weight


def fill_buffers(model: ByteLM, device: str | torch.device) -> None:
    """Compute what is in no file, for a model that was built on the meta device."""
    match model.config.position:
        case AlibiConfig(shrink=shrink):
            slopes = alibi_slopes(model.config.attention.num_heads) / shrink
            model.position.register_buffer("slopes", slopes.to(device), persistent=False)


def initialise(model: ByteLM, seed: int) -> None:
    """Draw every weight anew: normal with deviation 0.02; the layers that write to the residual stream by a factor
    ``1 / sqrt(2 * num_blocks)`` less (Radford et al. 2019, section 2.3); norms are ones, biases zeros. Draft heads
    guess what the LM head predicts.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(parameter: Tensor, deviation: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)

    _fill(model, draw)


def build_noise_model(config: ModelConfig, dtype: torch.dtype, device: str | torch.device = "cpu") -> ByteLM:
    """A model to measure speed on, made at the speed of memory and in its final type at once: no weight is drawn twice.

    Weights are those of :func:`initialise`, but that a million normal numbers come again and again, at other places of
    each matrix; each has memory of its own.

    Args:
        config: of the model.
        dtype: of all weights.
        device: where they go.
    """
    model = build_model(config, device="meta").to(dtype)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty_like(parameter, device=device)))
    with torch.device(device):
        model.position = _position(config)
    tie_head(model)
    noise = torch.randn(_NOISE, generator=torch.Generator().manual_seed(0)).to(device=device, dtype=dtype)

    def repeat(parameter: Tensor, deviation: float) -> None:
        some = noise * deviation
        for piece in parameter.view(-1).split(_NOISE):
            piece.copy_(some[: len(piece)])

    _fill(model, repeat)
    return model


def _fill(model: ByteLM, draw: Callable[[Tensor, float], None]) -> None:
    """Give every weight its values; ``draw`` fills a matrix with normal numbers of a deviation."""
    shrink = 1 / math.sqrt(2 * model.config.num_blocks)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            residual = name.endswith(("attention.output.weight", "feedforward.down.weight"))
            draw(parameter, 0.02 * shrink if residual else 0.02)
    if model.draft_heads is not None:
        model.draft_heads.start_as(model.lm_head)


def _norm(config: ModelConfig) -> nn.Module:
    match config.norm.kind:
        case "rms":
            return RMSNorm(config.width, config.norm.eps)
        case "layer":
            return nn.LayerNorm(config.width, config.norm.eps)


def _position(config: ModelConfig) -> nn.Module:
    match config.position:
        case RotaryConfig(width=width, base=base):
            return Rotary(width or config.attention.head_width, base)
        case AlibiConfig(shrink=shrink, trained=trained):
            return Alibi(config.attention.num_heads, shrink, trained)
        case LearnedPositionsConfig():
            return Unplaced()


def _feedforward(config: FeedForwardConfig, width: int) -> SwiGLU | GeluMLP:
    match config.kind:
        case "swiglu":
            return SwiGLU(width, config.inner, bias=config.bias)
        case "gelu":
            return GeluMLP(width, config.inner)


def _attention(config: AttentionConfig, width: int) -> Attention:
    return Attention(
        width,
        config.num_heads,
        config.num_kv_heads,
        config.head_width,
        bias=config.bias,
        output_bias=config.output_bias,
        scale=1 / config.head_width if config.scale == "width" else None,
    )


def _block(config: ModelConfig, index: int) -> SequentialBlock | ParallelBlock:
    attention = _attention(config.attention, config.width)
    feedforward = _feedforward(config.feedforward, config.width)
    match config.wiring:
        case "sequential":
            return SequentialBlock(index, _norm(config), attention, _norm(config), feedforward)
        case "parallel":
            return ParallelBlock(index, _norm(config), attention, feedforward)


def _tables(config: NgramConfig | None, width: int) -> NgramTables | None:
    if config is None:
        return None
    kind = ChosenNgrams if config.chosen else NgramTables
    found = config.matches
    matches = None if found is None else Matches(found.lengths, found.candidates, found.reach, found.symbols)
    return kind(config.orders, config.rows, width, config.row_width, matches)


def _byte_merger(config: ModelConfig, merger: MergerConfig) -> ConcatMerger:
    sizes = config.vocab_size, config.patch, merger.byte_width, config.width
    tables = _tables(merger.tables, config.width)
    match merger:
        case MLPMergerConfig(inner=inner):
            return MLPMerger(*sizes, tables, inner)
        case _:
            return ConcatMerger(*sizes, tables)


def _merger(config: ModelConfig, merger: MergerConfig | TokenEmbeddingConfig) -> ConcatMerger | TokenEmbedding:
    match merger:
        case MergerConfig():
            return _byte_merger(config, merger)
        case TokenEmbeddingConfig():
            num_positions = config.context if config.position.kind == "learned" else 0
            tables = _tables(merger.tables, config.width)
            return TokenEmbedding(merger.num_rows, config.width, merger.scale, num_positions, tables)


def _heads(config: ModelConfig) -> IndependentHeads | ChainedHeads | LMHead:
    match config.heads:
        case LMHeadConfig() as head:
            return LMHead(
                config.width,
                head.num_rows,
                config.vocab_size,
                bias=head.bias,
                scale=head.scale,
            )
        case IndependentHeadsConfig():
            return IndependentHeads(config.width, config.vocab_size, config.patch)
        case ChainedHeadsConfig() as heads:
            return ChainedHeads(
                config.width,
                config.vocab_size,
                config.patch,
                heads.byte_width,
                heads.inner,
                _norm(config),
                _tables(heads.tables, config.width),
                heads.num_unembeddings(config.patch),
                heads.mlp_inputs(config.patch, config.width),
            )


def _state_tables(config: ModelConfig) -> NgramTables | None:
    return _tables(config.heads.tables, config.width) if isinstance(config.heads, LMHeadConfig) else None


def _state_mlp(config: ModelConfig) -> StateMLP | None:
    match config.heads:
        case LMHeadConfig(mixed=True) as head:
            return StateMLP(head.mlp_inputs(config.width), config.width, head.inner, _norm(config))
        case _:
            return None


def _next_patch(config: ModelConfig) -> NextPatch | None:
    match config.next_patch:
        case None:
            return None
        case next_patch:
            return NextPatch(
                config.width,
                _byte_merger(config, next_patch.merger),
                _feedforward(next_patch.feedforward, config.width),
                state_norm=_norm(config),
                bytes_norm=_norm(config),
                feedforward_norm=_norm(config),
                norm=_norm(config),
            )


def _draft_heads(config: ModelConfig) -> DraftHeads | None:
    match config.draft_heads, config.heads:
        case DraftHeadsConfig(num_heads=num_heads, unembedding="shared"), _:
            return DraftHeads(config.width, num_heads)
        case DraftHeadsConfig(num_heads=num_heads), LMHeadConfig(bias=bias, scale=scale):
            sizes = config.width, config.vocab_size, config.vocab_size
            return DraftHeads(
                config.width, num_heads, [LMHead(*sizes, bias=bias, scale=scale) for _ in range(num_heads)]
            )
        case _:
            return None

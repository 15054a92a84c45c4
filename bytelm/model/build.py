"""From a config to modules: the only place that looks at kinds."""

import math

import torch
from torch import nn

from bytelm.heads import ChainedHeads, IndependentHeads
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ChainedHeadsConfig, IndependentHeadsConfig, ModelConfig, NgramConfig
from bytelm.nn.attention import Attention
from bytelm.nn.block import SequentialBlock
from bytelm.nn.feedforward import SwiGLU
from bytelm.nn.merger import ConcatMerger
from bytelm.nn.ngram import NgramTables
from bytelm.nn.norm import RMSNorm


def build_model(config: ModelConfig, seed: int = 0, device: str | torch.device | None = None) -> ByteLM:
    """A model with fresh weights, a function of ``seed`` alone on a given platform.

    On the meta device the weights are shapes only.
    """
    with torch.device(device if device is not None else torch.get_default_device()):
        blocks = [_block(config, i) for i in range(config.num_blocks)]
        model = ByteLM(config, _merger(config), blocks, _norm(config), _heads(config))
    if model.device.type != "meta":
        initialise(model, seed)
    return model


def initialise(model: ByteLM, seed: int) -> None:
    """Draw every weight anew: normal with deviation 0.02; the layers that write to the residual stream by a factor
    ``1 / sqrt(2 * num_blocks)`` less (Radford et al. 2019, section 2.3); norms are ones.
    """
    generator = torch.Generator().manual_seed(seed)
    shrink = 1 / math.sqrt(2 * model.config.num_blocks)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
                continue
            residual = name.endswith(("attention.output.weight", "feedforward.down.weight"))
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (0.02 * shrink if residual else 0.02))


def _norm(config: ModelConfig) -> nn.Module:
    match config.norm.kind:
        case "rms":
            return RMSNorm(config.width, config.norm.eps)


def _block(config: ModelConfig, index: int) -> SequentialBlock:
    attention = Attention(
        config.width, config.attention.num_heads, config.attention.num_kv_heads, config.attention.head_width
    )
    match config.feedforward.kind:
        case "swiglu":
            feedforward = SwiGLU(config.width, config.feedforward.inner)
    return SequentialBlock(index, _norm(config), attention, _norm(config), feedforward)


def _tables(config: NgramConfig | None, width: int) -> NgramTables | None:
    return None if config is None else NgramTables(config.orders, config.rows, width)


def _merger(config: ModelConfig) -> ConcatMerger:
    merger = config.merger
    match merger.kind:
        case "concat":
            tables = _tables(merger.tables, config.width)
            return ConcatMerger(config.vocab_size, config.patch, merger.byte_width, config.width, tables)


def _heads(config: ModelConfig) -> IndependentHeads | ChainedHeads:
    match config.heads:
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
            )

"""Models of other packages to train beside ours: Llamas of the same body, one token for each of our patches."""

import dataclasses
import importlib

import torch.nn.functional as F
from torch import Tensor, nn

from bytelm.benchmarks.coders import Skipped
from bytelm.benchmarks.operations import head_products, merger_products
from bytelm.benchmarks.rival_models import new_llama
from bytelm.benchmarks.training_plan import training_operations
from bytelm.model.config import ModelConfig, RotaryConfig
from bytelm.model.ends import LMHeadConfig, TokenEmbeddingConfig

_STEP = 64


class TransformersLlama(nn.Module):
    """``LlamaForCausalLM`` of transformers, with the loss that it computes itself.

    Args:
        config: of our model.
        vocab_size: V of the rival.
    Raises:
        ImportError: there is no such model.
    """

    name = "transformers"

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.model = new_llama(importlib.import_module("transformers"), config, vocab_size)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Mean nats of the tokens after the first."""
        loss: Tensor = self.model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss
        return loss


class LitGPT(nn.Module):
    """``GPT`` of litgpt in Llama's layout; arguments and errors as for :class:`TransformersLlama`."""

    name = "litgpt"

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        litgpt = importlib.import_module("litgpt")
        settings = litgpt.Config(
            block_size=config.context // config.patch,
            vocab_size=vocab_size,
            padded_vocab_size=vocab_size,
            n_layer=config.num_blocks,
            n_head=config.attention.num_heads,
            n_query_groups=config.attention.num_kv_heads,
            head_size=config.attention.head_width,
            n_embd=config.width,
            intermediate_size=config.feedforward.inner,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            norm_eps=config.norm.eps,
            mlp_class_name="LLaMAMLP",
        )
        self.model = litgpt.GPT(settings)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Mean nats of the tokens after the first."""
        logits_BTV = self.model(tokens_BT)
        return F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1).float(), tokens_BT[:, 1:].flatten())


def new_rivals(config: ModelConfig, vocab_size: int) -> tuple[list[TransformersLlama | LitGPT], list[Skipped]]:
    """Every rival that can be made here, and the reasons why others cannot."""
    if not _is_llama(config):
        reason = "the body is not Llama's: sequential, rotary on whole heads, RMS norm, SwiGLU, no biases"
        return [], [Skipped(kind.name, reason) for kind in (TransformersLlama, LitGPT)]
    found: list[TransformersLlama | LitGPT] = []
    skipped = []
    for kind in (TransformersLlama, LitGPT):
        try:
            found.append(kind(config, vocab_size))
        except ImportError as error:
            skipped.append(Skipped(kind.name, f"cannot be imported ({error})"))
    return found, skipped


def rival_config(config: ModelConfig, vocab_size: int) -> ModelConfig:
    """What :func:`new_rivals` builds: the same body, one token to a position, a table of its own for the head."""
    return dataclasses.replace(
        config,
        merger=TokenEmbeddingConfig(num_rows=vocab_size),
        heads=LMHeadConfig(num_rows=vocab_size),
        patch=1,
        vocab_size=vocab_size,
        context=config.context // config.patch,
        next_patch=None,
    )


def rival_vocabulary(config: ModelConfig) -> int:
    """The size of a vocabulary whose head has as many products as our merger and heads; a multiple of 64."""
    products = merger_products(config) + head_products(config, config.laws[0])
    return max(_STEP, round(products / config.width / _STEP) * _STEP)


def position_operations(config: ModelConfig, window: int) -> float:
    """Operations of forward and backward pass for one position of the body, in windows of so many symbols."""
    return training_operations(config, window).learning * config.patch


def _is_llama(config: ModelConfig) -> bool:
    rotary = isinstance(config.position, RotaryConfig) and config.position.width in (None, config.attention.head_width)
    plain = not (config.attention.bias or config.attention.output_bias or config.feedforward.bias)
    usual = (config.wiring, config.norm.kind, config.feedforward.kind, config.attention.scale)
    return rotary and plain and usual == ("sequential", "rms", "swiglu", "root")

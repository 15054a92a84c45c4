"""The training loss of a byte model: mean nats per byte over all heads, and what a run may change about it."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor, nn

from bytelm.config import Config
from bytelm.encoding import Encoding
from bytelm.errors import ConfigError
from bytelm.heads import ChainedHeads, IndependentHeads, LMHead
from bytelm.model.byte_lm import ByteLM, cross_entropy, soft_cross_entropy
from bytelm.model.documents import Boundaries
from bytelm.shapes import Hidden

_NO_TARGETS = ("<|pad|>", "<|bos|>")
"""Controls that a model is never asked for."""


@dataclass(frozen=True, kw_only=True)
class LossConfig(Config):
    """What a byte model minimises; by default its mean nats per byte over all heads.

    Attributes:
        head_weights: of heads 1 … K in that mean; their ratios alone matter. Equal by default.
        curriculum: share of training in which the heads come in, in K stages of equal length: stage s trains heads
            1 … s. 0: all from the start; 1: over the whole training, as the forward curriculum of Aynetdinov and Akbik
            2025, arXiv:2505.22757.
        z_loss: c of ``c * log(Z)^2``, added to the nats of each byte, where Z is the sum of the exponentials of its
            logits (Chowdhery et al. 2022, arXiv:2204.02311, section 5, with c = 1e-4).
        detach_heads: whether no gradient of heads 2 … K reaches the state they read, so that the body learns from
            head 1 alone.
        mask_controls: whether PAD and BOS are no targets; for encodings in which they are bytes of their own.
    """

    head_weights: tuple[float, ...] | None = None
    curriculum: float = 0.0
    z_loss: float = 0.0
    detach_heads: bool = False
    mask_controls: bool = False

    def validate(self) -> None:
        """Check the ranges."""
        weights = self.head_weights
        self.require(
            weights is None or (len(weights) > 0 and weights[0] > 0 and all(0 <= w < math.inf for w in weights)),
            "head_weights",
            "numbers >= 0, the first of them > 0",
        )
        self.require(0 <= self.curriculum <= 1, "curriculum", "a number from 0 to 1")
        self.require(0 <= self.z_loss < math.inf, "z_loss", "a number >= 0")


class TrainingLoss(nn.Module):
    """The loss of a batch.

    Args:
        config: what is minimised.
        num_heads: K of the model.
        encoding: of the corpora; None for a model of tokens.
    Raises:
        ConfigError: as many ``head_weights`` are not given as there are heads; or the controls of the encoding cannot
            be masked.
    """

    head_weights_K: Tensor
    masked_V: Tensor | None

    def __init__(self, config: LossConfig, num_heads: int, encoding: Encoding | None) -> None:
        super().__init__()
        weights = config.head_weights or (1.0,) * num_heads
        if len(weights) != num_heads:
            raise ConfigError(
                f"model.loss.head_weights: found {len(weights)} numbers, expected {num_heads}, one for each head"
            )
        if config.mask_controls and encoding is None:
            raise ConfigError("model.loss.mask_controls: found true, expected false for a model of tokens")
        masked_V = control_bytes(encoding) if config.mask_controls and encoding is not None else None
        self.config, self.num_heads = config, num_heads
        self.figure = "nats_per_token" if encoding is None else "nats_per_byte"
        self.predict = predict_detached if config.detach_heads else predict
        self.register_buffer("head_weights_K", torch.tensor(weights), persistent=False)
        self.register_buffer("masked_V", masked_V, persistent=False)

    def forward(
        self,
        model: ByteLM,
        bytes_BL: Integer[Tensor, "B L"],
        progress: float = 0.0,
        counts_BL: Bool[Tensor, "B L"] | None = None,
        boundaries: Boundaries | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss, with the nats of drafted patches against the model's law where it has a next-patch module.

        Args:
            model: whose loss it is.
            bytes_BL: as for :meth:`ByteLM.read`.
            progress: share of training that is done.
            counts_BL: the bytes that are targets; all by default. The others are read all the same.
            boundaries: as for :meth:`ByteLM.read`.
        Returns:
            The loss, and figures to log: ``nats_per_byte`` (of tokens ``nats_per_token``), the plain mean over all
            heads and targets; ``loss``, what is minimised in its place where the config asks for that, or where not all
            bytes count; ``next_patch_nats``.
        """
        h_BTD, windows, targets = model.read(bytes_BL, boundaries)
        logits_BTKV = self.predict(model.heads, h_BTD, windows, targets)
        counts_BTK = None if counts_BL is None else counts_BL.unflatten(1, (-1, model.config.patch))[:, 1:]
        loss, figures = self.reduce(logits_BTKV, targets, counts_BTK, progress)
        if model.next_patch is not None:
            ahead = model.predict_ahead(h_BTD, windows, targets)
            drafts = [
                _mean(soft_cross_entropy(logits, logits_BTKV[:, n:]), None if counts_BTK is None else counts_BTK[:, n:])
                for n, logits in enumerate(ahead, 1)
            ]
            figures["next_patch_nats"] = torch.stack(drafts).mean()
            loss = loss + figures["next_patch_nats"]
        return loss, figures

    def reduce(
        self,
        logits_BTKV: Float[Tensor, "B T K V"],
        targets_BTK: Int[Tensor, "B T K"],
        counts_BTK: Bool[Tensor, "B T K"] | None,
        progress: float,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Loss and figures of logits: the plain mean of nats unless config or ``counts_BTK`` ask for another.

        A target that does not count has no part in them, whatever its value.
        """
        nats_BTK = cross_entropy(logits_BTKV, targets_BTK)
        if counts_BTK is None and self.config == LossConfig():
            loss = nats_BTK.mean()
            return loss, {self.figure: loss}
        loss = self._weighted_mean(nats_BTK, logits_BTKV, targets_BTK, counts_BTK, progress)
        return loss, {self.figure: _mean(nats_BTK.detach(), counts_BTK), "loss": loss}

    def _weighted_mean(
        self,
        nats_BTK: Float[Tensor, "B T K"],
        logits_BTKV: Float[Tensor, "B T K V"],
        targets_BTK: Int[Tensor, "B T K"],
        counts_BTK: Bool[Tensor, "B T K"] | None,
        progress: float,
    ) -> Float[Tensor, ""]:
        """Mean of nats and z-loss with the weights of heads, over targets that count and heads that have come in."""
        terms_BTK = nats_BTK
        if self.config.z_loss:
            terms_BTK = nats_BTK + self.config.z_loss * logits_BTKV.float().logsumexp(-1).square()
        weights_BTK = self.head_weights_K.expand_as(nats_BTK)
        if self.masked_V is not None:
            weights_BTK = weights_BTK * ~self.masked_V[targets_BTK]
        if counts_BTK is not None:
            weights_BTK = weights_BTK * counts_BTK
        k = num_trained_heads(self.num_heads, self.config.curriculum, progress)
        total = weights_BTK[..., :k].sum().clamp(min=torch.finfo(torch.float32).tiny)
        return (weights_BTK * terms_BTK)[..., :k].sum() / total


def _mean(terms_BTK: Float[Tensor, "B T K"], counts_BTK: Bool[Tensor, "B T K"] | None) -> Float[Tensor, ""]:
    """The plain mean, of all or of those that count; 0 where none does."""
    if counts_BTK is None:
        return terms_BTK.mean()
    return (terms_BTK * counts_BTK).sum() / counts_BTK.sum().clamp(min=1)


def predict(
    heads: IndependentHeads | ChainedHeads | LMHead,
    h_BTD: Hidden,
    windows_BT_: Int[Tensor, "B T _"],
    targets_BTK: Int[Tensor, "B T K"],
) -> Float[Tensor, "B T K V"]:
    """Logits of all heads (teacher forcing)."""
    return heads(h_BTD, windows_BT_, targets_BTK)


def predict_detached(
    heads: IndependentHeads | ChainedHeads | LMHead,
    h_BTD: Hidden,
    windows_BT_: Int[Tensor, "B T _"],
    targets_BTK: Int[Tensor, "B T K"],
) -> Float[Tensor, "B T K V"]:
    """Logits of all heads (teacher forcing), of which head 1 alone sends a gradient to the states."""
    states = [h_BTD] + [h_BTD.detach()] * (targets_BTK.shape[-1] - 1)
    logits = [heads.step(state, windows_BT_, targets_BTK[..., :j]) for j, state in enumerate(states)]
    return torch.stack(logits, dim=2)


def num_trained_heads(num_heads: int, curriculum: float, progress: float) -> int:
    """How many heads, from the first on, are trained after the share ``progress`` of training."""
    if progress >= curriculum:
        return num_heads
    return min(num_heads, 1 + int(num_heads * progress / curriculum))


def control_bytes(encoding: Encoding, option: str = "model.loss.mask_controls") -> Bool[Tensor, " V"]:
    """Which byte values are PAD or BOS.

    Args:
        encoding: of the corpora.
        option: that needs to know, for messages.
    Raises:
        ConfigError: one of them has more than one byte, or a byte that other words have too, so that it takes more than
            a byte to tell.
    """
    values = [int.from_bytes(encoding.controls[name], "big") for name in _NO_TARGETS]
    words = encoding.words[encoding.lengths > 0].view(np.uint8).reshape(-1, 4)
    lengths = encoding.lengths[encoding.lengths > 0]
    of_words = {int(v) for j in range(4) for v in np.unique(words[lengths > j, j])}
    if encoding.unit > 1 or of_words & set(values):
        raise ConfigError(
            f"{option}: found encoding {encoding.name!r}, expected one whose controls are bytes of"
            " their own, such as utf8 or dense-ja"
        )
    masked_V = torch.zeros(256, dtype=torch.bool)
    masked_V[values] = True
    return masked_V

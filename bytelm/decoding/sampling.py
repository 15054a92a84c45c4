"""Sampling options, and the truncated distribution they make of a law's logits."""

import dataclasses
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bytelm.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Config):
    """How a symbol is chosen; the names and meanings of transformers' generation options.

    ``do_sample=False`` or ``temperature=0`` is greedy: the symbol of largest logit, the first of equals.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None

    def validate(self) -> None:
        """Check every option, also those that greedy decoding does not use."""
        self.require(isinstance(self.do_sample, bool), "do_sample", "true or false")
        self.require(_is_number(self.temperature) and self.temperature >= 0, "temperature", "a number of at least 0")
        whole = isinstance(self.top_k, int) and not isinstance(self.top_k, bool)
        self.require(self.top_k is None or (whole and self.top_k >= 1), "top_k", "an integer of at least 1, or none")
        for field in ("top_p", "typical_p"):
            mass = getattr(self, field)
            in_range = mass is None or (_is_number(mass) and 0 < mass <= 1)
            self.require(in_range, field, "a number above 0 and at most 1, or none")
        in_range = self.min_p is None or (_is_number(self.min_p) and 0 <= self.min_p <= 1)
        self.require(in_range, "min_p", "a number from 0 to 1, or none")

    @property
    def greedy(self) -> bool:
        """Whether the symbol of largest logit is taken, without noise."""
        return not self.do_sample or self.temperature == 0

    @property
    def truncates(self) -> bool:
        """Whether some symbols may be left out."""
        masses = (self.top_p or 1, self.typical_p or 1, 1 - (self.min_p or 0))
        return not self.greedy and (self.top_k is not None or min(masses) < 1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


GREEDY = Sampling()
"""The default."""


def warp(logits: Float[Tensor, "*B V"], sampling: Sampling) -> Float[Tensor, "*B V"]:
    """Log-probabilities after temperature, top-k, top-p, min-p and typical-p, in the order of transformers.

    ``top_k`` keeps every symbol whose logit is at least the k-th largest, so ties at the border all stay. ``top_p``
    keeps the smallest set of most probable symbols whose mass reaches ``top_p``, at least one; of equals at the border
    the ones of larger index stay. ``min_p`` keeps the symbols at least ``min_p`` times as probable as the most probable
    one (Nguyen et al., arXiv 2407.01082). ``typical_p`` keeps the smallest set of symbols, nearest first, whose -log p
    is near the entropy and whose mass reaches ``typical_p``, and all as near as the last of them (Meister et al., arXiv
    2202.00666, equation 10). The temperature must not be 0.

    Shapes depend on no value, and nothing waits for the device.

    Args:
        logits: (*B, V), at least one finite value in each distribution; -inf excludes a symbol.
    Returns:
        (*B, V) float32, or float64 for float64 logits: log-probabilities of the kept symbols, -inf outside.
    """
    return scores(logits, sampling).log_softmax(-1)


def scores(logits: Float[Tensor, "*B V"], sampling: Sampling) -> Float[Tensor, "*B V"]:
    """What :func:`warp` says, up to a number for each distribution."""
    found = logits if logits.dtype == torch.float64 else logits.float()
    if sampling.top_k is not None and sampling.top_k < found.shape[-1]:
        # Temperature keeps the order; before it, no two logits have become equal by rounding.
        border = found.topk(sampling.top_k).values[..., -1:]
        found = found.masked_fill(found < border, -math.inf)
    if sampling.temperature != 1:
        # The largest logit becomes 0, so that a very small temperature cannot overflow.
        found = (found - found.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_p is not None and sampling.top_p < 1:
        found = found.masked_fill(_outside_nucleus(found, sampling.top_p), -math.inf)
    if sampling.min_p is not None and sampling.min_p > 0:
        p = found.double().softmax(-1)
        found = found.masked_fill(p < sampling.min_p * p.amax(-1, keepdim=True), -math.inf)
    if sampling.typical_p is not None and sampling.typical_p < 1:
        found = found.masked_fill(_atypical(found, sampling.typical_p), -math.inf)
    return found


def _outside_nucleus(scores: Float[Tensor, "*B V"], top_p: float) -> Bool[Tensor, "*B V"]:
    ascending, order = scores.sort(dim=-1, stable=True)
    below = ascending.double().softmax(-1).cumsum(-1) <= 1 - top_p
    below[..., -1] = False
    return torch.empty_like(below).scatter_(-1, order, below)


def _atypical(scores: Float[Tensor, "*B V"], typical_p: float) -> Bool[Tensor, "*B V"]:
    log_p = scores.double().log_softmax(-1)
    entropy = -(log_p * log_p.exp()).nansum(-1, keepdim=True)  # 0 log 0 counts 0
    distance = (log_p + entropy).abs()
    nearest, order = distance.sort(dim=-1, stable=True)
    mass = log_p.gather(-1, order).exp().cumsum(-1)
    last = (mass < typical_p).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
    return distance > nearest.gather(-1, last)

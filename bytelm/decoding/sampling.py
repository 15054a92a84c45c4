"""Sampling options, and the truncated distribution they make of a law's logits."""

import dataclasses
import math

import torch
from torch import Tensor

from bytelm.config import Config
from bytelm.shapes import Logits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Config):
    """How a symbol is chosen; the names and meanings of transformers' generation options.

    ``do_sample=False`` or ``temperature=0`` is greedy: the symbol of largest logit, the first of equals.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def validate(self) -> None:
        """Check every option, also those that greedy decoding does not use."""
        self.require(isinstance(self.do_sample, bool), "do_sample", "true or false")
        self.require(_is_number(self.temperature) and self.temperature >= 0, "temperature", "a number of at least 0")
        whole = isinstance(self.top_k, int) and not isinstance(self.top_k, bool)
        self.require(self.top_k is None or (whole and self.top_k >= 1), "top_k", "an integer of at least 1, or none")
        in_range = self.top_p is None or (_is_number(self.top_p) and 0 < self.top_p <= 1)
        self.require(in_range, "top_p", "a number above 0 and at most 1, or none")

    @property
    def greedy(self) -> bool:
        """Whether the symbol of largest logit is taken, without noise."""
        return not self.do_sample or self.temperature == 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def warp(logits: Logits, sampling: Sampling) -> Logits:
    """Log-probabilities after temperature, then top-k, then top-p, in the order and with the ties of transformers.

    ``top_k`` keeps every symbol whose logit is at least the k-th largest, so ties at the border all stay. ``top_p``
    keeps the smallest set of most probable symbols whose mass reaches ``top_p``, at least one; of equals at the border
    the ones of larger index stay. The temperature must not be 0.

    Args:
        logits: (B, V), at least one finite value a row.
    Returns:
        (B, V) float32, or float64 for float64 logits: log-probabilities of the kept symbols, -inf outside.
    """
    scores = logits if logits.dtype == torch.float64 else logits.float()
    if sampling.temperature != 1:
        # The largest logit becomes 0, so that a very small temperature cannot overflow.
        scores = (scores - scores.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        border = scores.topk(sampling.top_k).values[..., -1:]
        scores = scores.masked_fill(scores < border, -math.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        scores = scores.masked_fill(_outside_nucleus(scores, sampling.top_p), -math.inf)
    return scores.log_softmax(-1)


def _outside_nucleus(scores: Logits, top_p: float) -> Tensor:
    ascending, order = scores.sort(dim=-1, stable=True)
    below = ascending.double().softmax(-1).cumsum(-1) <= 1 - top_p
    below[..., -1] = False
    return torch.empty_like(below).scatter_(-1, order, below)

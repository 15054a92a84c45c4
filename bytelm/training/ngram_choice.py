"""Which n-grams get rows of their own: those after which the next symbol is best told apart from what shorter ones say.

After an n-gram w that the text has c times, d different symbols follow, symbol b of them k times. Absolute discounting
(Ney, Essen & Kneser 1994, "On structuring probabilistic dependences in stochastic language modelling"; Chen & Goodman
1999, section 2) gives b the probability ``(k - D + D d q) / c``, where q is its probability after w without its first
symbol. What w is worth is the sum over what follows it of ``log2 p - log2 q``, in which each occurrence is left out of
the counts that predict it, as in the first of these papers, section 4: an n-gram seen a few times is so worth little.
(Entropy pruning, Stolcke 1998, arXiv:cs/0006025, ranks by the same difference without leaving one out.)
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from bytelm.errors import ConfigError
from bytelm.model.byte_lm import ByteLM
from bytelm.nn.ngram import ChosenNgrams, ngram_keys
from bytelm.training.data import CorpusData
from bytelm.training.text_data import TextData

log = logging.getLogger(__name__)

DISCOUNT = 0.75
"""D."""

MAX_SYMBOLS = 1 << 27
"""The most symbols of a text that are counted."""

_KEY_BITS = 64


class _Grams(NamedTuple):
    """Different n-grams, each one number, in their order; and the probability of the last symbol of each."""

    codes: NDArray[np.uint64]
    probabilities: NDArray[np.float64]


class RankedNgrams(NamedTuple):
    """N-grams of a text that are worth something, those worth most first.

    Attributes:
        keys: of each, see :func:`bytelm.nn.ngram.ngram_keys`.
        orders: n of each.
    """

    keys: NDArray[np.int64]
    orders: NDArray[np.int64]

    def best(self, orders: Sequence[int], num: int) -> Int[Tensor, " _"]:
        """Keys of the first ``num`` of these orders."""
        return torch.from_numpy(self.keys[np.isin(self.orders, orders)][:num])


def rank_ngrams(symbols: NDArray[Any], vocab_size: int, orders: Sequence[int], num: int) -> RankedNgrams:
    """At most ``num`` n-grams of each order in a text, by what they are worth.

    Args:
        symbols: the text.
        vocab_size: V; symbols are below it.
        orders: the n.
        num: of each order.
    Raises:
        ConfigError: n symbols and the next one are more than 64 bits.
    """
    bits = max(1, (vocab_size - 1).bit_length())
    if bits * (max(orders) + 1) > _KEY_BITS:
        raise ConfigError(
            f"tables.orders: found {tuple(orders)} of {vocab_size} symbols, expected at most"
            f" {_KEY_BITS // bits - 1} for chosen n-grams"
        )
    counts = np.bincount(symbols, minlength=vocab_size)
    shorter = _Grams(np.arange(vocab_size, dtype=np.uint64), (counts + 0.5) / (counts.sum() + 0.5 * vocab_size))
    symbols = symbols.astype(np.uint64)
    found = list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]()
    for n in range(1, max(orders) + 1):
        contexts, gains, shorter = _gains(symbols, n, bits, shorter)
        if n in orders:
            best = np.argsort(-gains, kind="stable")[:num]
            best = best[gains[best] > 0]
            found.append((_keys(contexts[best], n, bits), np.full(len(best), n), gains[best]))
    keys, lengths, worths = (np.concatenate(part) for part in zip(*found, strict=True))
    ranked = np.argsort(-worths, kind="stable")
    return RankedNgrams(keys[ranked], lengths[ranked])


def _gains(
    symbols: NDArray[np.uint64], n: int, bits: int, shorter: _Grams
) -> tuple[NDArray[np.uint64], NDArray[np.float64], _Grams]:
    """The n-grams that something follows, what each is worth in bits, and the (n + 1)-grams."""
    codes, counts = _count(symbols, n + 1, bits)
    contexts = codes >> np.uint64(bits)
    begins, num_kinds = _runs(contexts)
    totals, kinds = (np.repeat(of, num_kinds) for of in (np.add.reduceat(counts, begins), num_kinds))
    without_first = codes & np.uint64((1 << (bits * n)) - 1)
    lower = shorter.probabilities[np.searchsorted(shorter.codes, without_first)]
    probabilities = (counts - DISCOUNT + DISCOUNT * kinds * lower) / totals
    kinds = kinds - (counts == 1)  # from here without the occurrence that is predicted
    others = np.maximum(counts - 1 - DISCOUNT, 0) + DISCOUNT * kinds * lower
    left_out = np.where(totals > 1, others / np.maximum(totals - 1, 1), lower)
    gains = np.add.reduceat(counts * np.log2(left_out / lower), begins)
    return contexts[begins], gains, _Grams(codes, probabilities)


def _count(symbols: NDArray[np.uint64], n: int, bits: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The different n-grams of a text, each one number, in their order, and how often it has them."""
    num = max(0, len(symbols) - n + 1)
    codes = np.zeros(num, np.uint64)
    for i in range(n):
        codes = (codes << np.uint64(bits)) | symbols[i : i + num]
    codes.sort()
    begins, counts = _runs(codes)
    return codes[begins], counts


def _runs(ordered: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the runs of equal numbers begin, and how long they are."""
    is_new = np.ones(len(ordered), bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    begins = np.flatnonzero(is_new)
    return begins, np.diff(np.append(begins, len(ordered)))


def _keys(codes: NDArray[np.uint64], n: int, bits: int) -> NDArray[np.int64]:
    shifts = np.arange(bits * (n - 1), -1, -bits).astype(np.uint64)
    ngrams = (codes[:, None] >> shifts) & np.uint64((1 << bits) - 1)
    return ngram_keys(torch.from_numpy(ngrams.astype(np.int64))).numpy()


def choose_ngrams(model: ByteLM, data: LightningDataModule | None) -> None:
    """Give rows to n-grams of the training text, in those tables of a model that have chosen none.

    Raises:
        ConfigError: there are such tables, and ``data``, pairs or loaders without a data module, has no text to count
            in; or as :func:`rank_ngrams`.
    """
    tables = [part for part in model.modules() if isinstance(part, ChosenNgrams) and not part.is_chosen]
    if not tables:
        return
    if not isinstance(data, CorpusData | TextData):
        raise ConfigError(
            "tables.chosen: found true without a text to count in (pairs, or loaders without a data module), expected"
            " CorpusData, TextData or a model whose n-grams are chosen"
        )
    orders = sorted({n for part in tables for n in part.orders})
    capacity = max(part.capacity for part in tables)
    log.info("choosing the n-grams of %s symbols that get rows of their own", orders)
    ranked = rank_ngrams(data.training_symbols(MAX_SYMBOLS), model.config.vocab_size, orders, capacity)
    for part in tables:
        part.choose(ranked.best(part.orders, part.capacity))

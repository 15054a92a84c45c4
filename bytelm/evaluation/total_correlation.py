"""What a model pays for predicting the bytes of a patch independently, under a character bigram as the oracle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from bytelm.evaluation.code_words import CodeWords

_ROWS = 512  # rows of the bigram handled at a time


@final
@dataclass(frozen=True, slots=True)
class BigramOracle:
    """p(character | previous character), Witten-Bell smoothed (Chen and Goodman 1999, equation 17), the unigram with
    half a count added to each character of the vocabulary.

    Attributes:
        points: int64[V], the code points of the vocabulary, increasing.
        p: float64[V, V], each row a distribution.
    """

    points: NDArray[np.int64]
    p: NDArray[np.float64]

    @classmethod
    def fit(cls, texts: Sequence[NDArray[np.int64]], points: NDArray[np.int64]) -> "BigramOracle":
        """From texts as code points, all of which are in ``points``."""
        size = len(points)
        pairs = np.zeros((size, size))
        unigram = np.full(size, 0.5)
        for text in texts:
            index = np.searchsorted(points, text)
            unigram += np.bincount(index, minlength=size)
            np.add.at(pairs, (index[:-1], index[1:]), 1)
        distinct = (pairs > 0).sum(axis=1, keepdims=True).astype(np.float64)
        distinct[distinct == 0] = 1
        p = (pairs + distinct * (unigram / unigram.sum())) / (pairs.sum(axis=1, keepdims=True) + distinct)
        return cls(points, p)


@final
@dataclass(frozen=True, slots=True)
class Contexts:
    """Where patches begin.

    Attributes:
        previous: int64[N], the last whole character before the patch, as an index into the vocabulary.
        current: int64[N], the character that the first byte of the patch belongs to.
        seen: int64[N], how many bytes of ``current`` stand before the patch.
    """

    previous: NDArray[np.int64]
    current: NDArray[np.int64]
    seen: NDArray[np.int64]


def sample_contexts(
    texts: Sequence[NDArray[np.int64]], code: CodeWords, points: NDArray[np.int64], patch: int, number: int, seed: int
) -> Contexts:
    """Patches drawn evenly, without replacement, from all whole ones that a character stands before.

    Texts are cut from their beginnings into patches of ``patch`` bytes; characters without a word are left out.
    """
    found = []
    for text in texts:
        text = text[code.lengths[text] > 0]
        ends = np.cumsum(code.lengths[text], dtype=np.int64)
        if len(text) < 2:
            continue
        offsets = np.arange(0, ends[-1] - patch + 1, patch)
        offsets = offsets[offsets >= ends[0]]
        current = np.searchsorted(ends, offsets, side="right")
        index = np.searchsorted(points, text)
        found.append(np.stack([index[current - 1], index[current], offsets - ends[current - 1]]))
    if not found:
        return Contexts(*np.zeros((3, 0), dtype=np.int64))
    every = np.concatenate(found, axis=1)
    chosen = np.random.default_rng(seed).permutation(every.shape[1])[:number]
    return Contexts(*every[:, np.sort(chosen)])


def total_correlation(code: CodeWords, oracle: BigramOracle, contexts: Contexts, patch: int = 4) -> NDArray[np.float64]:
    """``sum_j H(b_j | context) - H(b_1..b_P | context)`` of the bytes of each patch, in bits: float64[N].

    It is what independent heads lose against the joint distribution of the patch (Watanabe 1960, total correlation),
    exact under the oracle: with A_i[c] the probability that a character ends just before byte i and is c, the
    characters that begin there have the distribution A_i p; marginals are their sums by byte. The joint entropy is, by
    the chain rule, the sum over i and c of A_i[c] times the entropy of the next word after c, cut off where the patch
    ends.
    """
    known = code.lengths[oracle.points] > 0
    words, lengths = code.words[oracle.points], code.lengths[oracle.points].astype(np.int64)
    p = np.where(known, oracle.p, 0)
    p /= p.sum(axis=1, keepdims=True)
    number, size = len(contexts.previous), len(oracle.points)
    ended = np.zeros((patch, number, size))
    marginals = np.zeros((patch, number, 256))
    joint = np.zeros(number)
    ended[0][np.arange(number), contexts.previous] = contexts.seen == 0
    for n in np.flatnonzero(contexts.seen):
        seen = contexts.seen[n]
        goes_on = known & (lengths > seen) & (words[:, :seen] == words[contexts.current[n], :seen]).all(axis=1)
        q = np.where(goes_on, p[contexts.previous[n]], 0)[None] / p[contexts.previous[n]][goes_on].sum()
        rest = np.pad(words[:, seen:], ((0, 0), (0, seen)))
        joint[n] += _word_entropy(q, rest, np.maximum(lengths - seen, 0), patch)[0]
        _spread(q, rest, lengths - seen, 0, marginals[:, n : n + 1], ended[:, n : n + 1])
    entropies: dict[int, NDArray[np.float64]] = {}
    for start in range(patch):
        reached = ended[start]
        if not reached.any():
            continue
        left = min(patch - start, words.shape[1])
        if left not in entropies:
            blocks = range(0, size, _ROWS)
            entropies[left] = np.concatenate([_word_entropy(p[i : i + _ROWS], words, lengths, left) for i in blocks])
        joint += reached @ entropies[left]
        _spread(reached @ p, words, lengths, start, marginals, ended)
    assert np.allclose(marginals.sum(axis=2), 1)
    return _entropy(marginals).sum(axis=0) - joint


def _spread(
    q: NDArray[np.float64],
    words: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    start: int,
    marginals: NDArray[np.float64],
    ended: NDArray[np.float64],
) -> None:
    """Add the words that begin at byte ``start`` with probabilities q [N, V] to the marginals, and their ends."""
    patch = len(marginals)
    for k in range(min(words.shape[1], patch - start)):
        there = np.flatnonzero(lengths > k)
        for n, row in enumerate(q[:, there]):
            marginals[start + k, n] += np.bincount(words[there, k], weights=row, minlength=256)
        last = lengths == k + 1
        if start + k + 1 < patch:
            ended[start + k + 1][:, last] += q[:, last]


def _word_entropy(
    q: NDArray[np.float64], words: NDArray[np.uint8], lengths: NDArray[np.int64], size: int
) -> NDArray[np.float64]:
    """Entropy in bits of the first ``size`` bytes of a word with probabilities q [N, V]: float64[N]."""
    kept = np.minimum(lengths, size)
    shown = np.where(np.arange(words.shape[1]) < kept[:, None], words, 0).astype(np.uint8)
    keys = np.ascontiguousarray(shown).view(">u4").reshape(-1).astype(np.int64) * 8 + kept
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(np.diff(keys[order], prepend=-1))
    return _entropy(np.add.reduceat(q[:, order], first, axis=1))


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """In bits, along the last axis."""
    return -np.where(p > 0, p * np.log2(np.where(p > 0, p, 1)), 0).sum(axis=-1)

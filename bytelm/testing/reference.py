"""Decoding once more, so slow and plain that one can see it is right: one symbol at a time, no cache, no draft."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding import Sampling


class Law(Protocol):
    """A language model, as the references see it."""

    @property
    def vocab(self) -> int:
        """V, the number of symbols."""
        ...

    def logits(self, history: Sequence[int]) -> NDArray[np.float64]:
        """Logits (V,) of the symbol after ``history``, which begins with the prompt."""
        ...


class Reference(NamedTuple):
    """What :func:`decode_reference` found."""

    symbols: list[int]
    nats: list[float]
    finish: str


def philox_reference(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10 (Salmon et al. 2011) in Python integers: four 32-bit words of four and a key of two."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k[0], second % 2**32, (first >> 32) ^ c[3] ^ k[1], first % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@functools.cache
def noise_reference(seed: int, row: int, position: int, vocab: int, stream: int = 0) -> NDArray[np.float64]:
    """The noise (V,) of :class:`bytelm.decoding.noise.GumbelNoise`, one symbol after another."""
    noise = []
    for symbol in range(vocab):
        words = philox_reference((symbol // 2, position, row, stream), (seed % 2**32, seed >> 32))
        high, low = words[2 * (symbol % 2) :][:2]
        u = ((high * 2**20 + low // 2**12) + 0.5) / 2**52
        noise.append(-math.log(-math.log(u)))
    return np.array(noise)


def warp_reference(
    logits: Sequence[float] | NDArray[np.float64],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> NDArray[np.float64]:
    """Log-probabilities (V,) of :func:`bytelm.decoding.warp`, by sorting and counting."""
    scores = [float(x) / temperature for x in logits]
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i), reverse=True)
    kept = set(order)
    if top_k is not None and top_k < len(scores):
        kept = {i for i in order if scores[i] >= scores[order[top_k - 1]]}
    if top_p is not None and top_p < 1:
        weights = {i: math.exp(scores[i] - scores[order[0]]) for i in kept}
        total, mass = math.fsum(weights.values()), 0.0
        nucleus: set[int] = set()
        for i in order:
            if i in kept and (not nucleus or mass < top_p):
                nucleus.add(i)
                mass += weights[i] / total
        kept = nucleus
    norm = math.log(math.fsum(math.exp(scores[i] - scores[order[0]]) for i in kept)) + scores[order[0]]
    return np.array([scores[i] - norm if i in kept else -math.inf for i in range(len(scores))])


def decode_reference(
    law: Law,
    prompt: Sequence[int],
    sampling: Sampling,
    max_new: int,
    *,
    seed: tuple[int, int] = (0, 0),
    stop: Callable[[list[int]], bool] | None = None,
) -> Reference:
    """Decode one row.

    Args:
        law: the model.
        prompt: what stands before.
        sampling: how a symbol is chosen.
        max_new: length of a row that ``stop`` does not end.
        seed: seed and row identity of the noise; not used by greedy decoding.
        stop: asked after every symbol.
    """
    history = [int(symbol) for symbol in prompt]
    symbols: list[int] = []
    nats: list[float] = []
    while len(symbols) < max_new:
        logits = law.logits(history)
        if sampling.greedy:
            symbol = int(np.argmax(logits))
        else:
            log_p = warp_reference(logits, sampling.temperature, sampling.top_k, sampling.top_p)
            symbol = int(np.argmax(log_p + noise_reference(*seed, len(symbols), law.vocab)))
        nats.append(-float(warp_reference(logits)[symbol]))
        symbols.append(symbol)
        history.append(symbol)
        if stop is not None and stop(symbols):
            return Reference(symbols, nats, "stop")
    return Reference(symbols, nats, "length")

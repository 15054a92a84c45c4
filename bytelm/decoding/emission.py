"""The one rule that emits, and the symbols that one forward lets every row emit by it. It holds no state of the run."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from bytelm.decoding.noise import GumbelNoise
from bytelm.decoding.protocols import Block, Choose
from bytelm.decoding.sampling import Sampling, warp
from bytelm.shapes import Counts, Logits, Rows, Symbols


@dataclasses.dataclass(frozen=True)
class EmissionRule:
    """The symbol at a position is argmax(log p + g), with p the warped law and g the noise of (seed, row, position).

    By the Gumbel-max theorem it has the distribution p. A draft made by the same rule from other logits agrees with it
    with probability at least (1 - TV) / (1 + TV), TV the total variation of the two distributions: drafter-invariant
    coupling, Daliri, Musco and Suresh (arXiv 2408.07978). Greedy: the argmax of the logits, without noise.
    """

    sampling: Sampling
    noise: GumbelNoise

    def at(self, positions: NDArray[np.int64]) -> Choose:
        """The rule for rows whose next symbol has index ``positions[b]`` in its row."""
        return functools.partial(self.choose, positions.copy())

    def choose(self, positions: NDArray[np.int64], logits: Logits, ahead: int) -> Symbols:
        """The symbol of row b at ``positions[b] + ahead``, where the law, or a draft's guess of it, has ``logits``."""
        if self.sampling.greedy:
            return logits.argmax(-1, keepdim=True)
        noise = self.noise(positions + ahead, logits.shape[-1], logits.device)
        return (warp(logits, self.sampling) + noise).argmax(-1, keepdim=True)


class Emission(NamedTuple):
    """What a block let every row emit: the first ``counts[b]`` of ``symbols``; the rest of a row is filler."""

    symbols: Symbols
    counts: Counts
    nats: Float[Tensor, "B N"]
    vocab: int


def emit(block: Block, choose: Choose, live: Rows, limit: int) -> Emission:
    """Emit from one block, symbol after symbol, until no live row is covered any more.

    Args:
        block: the law of the next symbols.
        choose: the rule, for the positions of the first symbol of the block.
        live: rows that have not finished; the others count 0.
        limit: at least 1, the most symbols that any row may still emit.
    Returns:
        Symbols and -log p of each in float64 under the law itself, before temperature and truncation.
    """
    logits = block.logits(torch.empty(len(live), 0, dtype=torch.int64, device=live.device))
    symbols, laws = choose(logits, 0), [logits]
    live = live.to(symbols.device)
    counts = live.long()
    for ahead in range(1, min(block.width, limit)):
        live = live & block.covers(symbols)
        if not live.any():
            break
        logits = block.logits(symbols)
        symbols = torch.cat((symbols, choose(logits, ahead)), dim=1)
        laws.append(logits)
        counts = counts + live
    log_p = torch.stack(laws, dim=1).double().log_softmax(-1)
    nats = -log_p.gather(-1, symbols[:, :, None]).squeeze(-1)
    return Emission(symbols, counts, nats, vocab=log_p.shape[-1])

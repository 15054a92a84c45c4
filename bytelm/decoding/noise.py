"""Counter-based Gumbel noise: a pure function of (seed, row, position, symbol), the same on every device."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from bytelm.decoding.transfer import to_device
from bytelm.errors import DecodingError

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_CHUNK_NUMBERS = {"cpu": 1 << 15, "cuda": 1 << 22}
_CHUNK_POSITIONS = 256


def philox4x32(counter: tuple[Tensor, ...], key: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11).

    Args:
        counter: four int64 tensors of 32-bit words that broadcast against each other.
        key: two int64 tensors of 32-bit words that broadcast with the counter.
    Returns:
        Four int64 tensors of the broadcast shape; words in 0 … 2**32 - 1.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2**64, which loses nothing; c1 and c3 hold whole products until they are masked.
        low, high = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = ((high >> 32) ^ c1 ^ k0) & _WORD, high
        c2, c3 = ((low >> 32) ^ c3 ^ k1) & _WORD, low
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1 & _WORD, c2, c3 & _WORD


def row_seeds(seed: int | Sequence[int], num_prompts: int, num_sequences: int = 1) -> list[tuple[int, int]]:
    """Give every row of a batch its (seed, row identity); the sequences of a prompt are rows that stand together.

    One integer: row r draws from (seed, r), so rows differ and depend on their place in the batch. A list: sequence i
    of prompt p draws from (seed[p], i), so a row's noise does not depend on its place: decoded alone under its seed,
    the row is the same.

    Raises:
        DecodingError: a seed outside 0 … 2**64 - 1, or a list whose length is not ``num_prompts``.
    """
    if isinstance(seed, Sequence):
        if len(seed) != num_prompts:
            raise DecodingError(
                f"seed: found a list of {len(seed)}, expected one seed for each of {num_prompts} prompts"
            )
        pairs = [(s, i) for s in seed for i in range(num_sequences)]
    else:
        pairs = [(seed, row) for row in range(num_prompts * num_sequences)]
    for value, _ in pairs:
        if not isinstance(value, int) or not 0 <= value < 1 << 64:
            raise DecodingError(f"seed: found {value!r}, expected an integer from 0 to 2**64 - 1")
    return pairs


class GumbelNoise:
    """Standard Gumbel noise g(seed, row, position)[symbol] for a batch of rows.

    The counter of the cipher is (symbol // 2, position, row, stream) and its key the seed's two words; a symbol's two
    output words give a uniform of 52 bits strictly inside (0, 1), u = (k + 1/2) / 2**52, and g = -log(-log u) in
    float64, so that ties of log p + g do not occur in practice. A symbol's noise does not depend on the size of the
    vocabulary.

    Values are computed a chunk of positions ahead and kept, because a call costs about a hundred small operations.

    Args:
        seeds: (seed, row identity) of each row, see :func:`row_seeds`.
        stream: 0 for the noise of emission; others are independent of it.
    """

    def __init__(self, seeds: Sequence[tuple[int, int]], stream: int = 0) -> None:
        self._seeds = torch.tensor([[s & _WORD, s >> 32, row] for s, row in seeds], dtype=torch.int64).view(-1, 3, 1, 1)
        self._stream = stream
        self._start_B = np.zeros(len(seeds), dtype=np.int64)
        self._chunk_BNV = torch.empty(len(seeds), 0, 0, dtype=torch.float64)

    def __call__(
        self, positions: NDArray[np.int64], count: int, vocab: int, device: torch.device | None = None
    ) -> Float[Tensor, "B N V"]:
        """Noise of row b at ``positions[b]`` and the ``count`` - 1 positions after it.

        Args:
            positions: (B,), each in 0 … 2**32 - 1: the index of a generated symbol in its row (0: first after the
                prompt).
            count: N, at least 1.
            vocab: V, the number of symbols.
            device: where the noise is computed and stays; default the CPU.
        """
        device = device or torch.device("cpu")
        offset_B = positions - self._start_B
        held = self._chunk_BNV.shape[2] == vocab and self._chunk_BNV.device == device and offset_B.min() >= 0
        if not held or offset_B.max() + count > self._chunk_BNV.shape[1]:
            kept = max(0, self._chunk_BNV.shape[1] - int(offset_B.max())) if held else 0
            known = [self._cut(offset_B, kept)] if kept else []
            budget = _CHUNK_NUMBERS.get(device.type, _CHUNK_NUMBERS["cuda"])
            num_ahead = max(count, min(_CHUNK_POSITIONS, budget // (len(positions) * vocab)))
            fresh = self._compute(positions + kept, num_ahead - kept, vocab, device)
            self._chunk_BNV, self._start_B = torch.cat((*known, fresh), dim=1), positions.copy()
            offset_B = np.zeros_like(positions)
        return self._cut(offset_B, count)

    def select(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows, in this order."""
        index = torch.from_numpy(rows)
        self._seeds, self._start_B = self._seeds[index], self._start_B[rows]
        self._chunk_BNV = self._chunk_BNV[index.to(self._chunk_BNV.device)]

    def join(self, other: "GumbelNoise") -> None:
        """Take up the rows of another of the same stream, after one's own; what was computed ahead is dropped."""
        self._seeds = torch.cat((self._seeds, other._seeds))
        self._start_B = np.append(self._start_B, other._start_B)
        self._chunk_BNV = self._chunk_BNV.new_empty(len(self._start_B), 0, 0)

    def _cut(self, offset_B: NDArray[np.int64], count: int) -> Float[Tensor, "B N V"]:
        """For each row ``count`` positions of the chunk from an offset on."""
        first = int(offset_B[0])
        if (offset_B == first).all():
            return self._chunk_BNV[:, first : first + count]
        device = self._chunk_BNV.device
        rows_B1 = torch.arange(len(offset_B), device=device)[:, None]
        return self._chunk_BNV[rows_B1, to_device(offset_B, device)[:, None] + torch.arange(count, device=device)]

    def _compute(
        self, positions: NDArray[np.int64], count: int, vocab: int, device: torch.device
    ) -> Float[Tensor, "B N V"]:
        """The noise itself, see :meth:`__call__`."""
        assert positions.min() >= 0
        assert positions.max() < _WORD - _CHUNK_POSITIONS
        start_B11 = to_device(positions, device).view(-1, 1, 1)
        position_BN1 = start_B11 + torch.arange(count, device=device).view(1, -1, 1)
        pair_11V = torch.arange((vocab + 1) // 2, device=device).view(1, 1, -1)
        low, high, row = self._seeds.to(device).unbind(1)
        words = philox4x32((pair_11V, position_BN1, row, torch.full_like(row, self._stream)), (low, high))
        k = torch.stack(((words[0] << 20) | (words[1] >> 12), (words[2] << 20) | (words[3] >> 12)), dim=-1)
        u = (k.flatten(2)[:, :, :vocab].to(torch.float64) + 0.5) * 2.0**-52
        return u.log_().neg_().log_().neg_()


def uniform(gumbel: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """The uniform number in (0, 1) that a Gumbel number was made of."""
    return (-(-gumbel).exp()).exp()

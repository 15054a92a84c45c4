"""A random order of many things that is never held in memory."""

import hashlib
from typing import final

_ROUNDS = 8


@final
class Permutation:
    """A bijection of 0 … ``size`` - 1, drawn by ``key``, whose values are computed one by one.

    A balanced Feistel network over the least even number of bits that can hold ``size``, BLAKE2b with the key as its
    round function; a value outside the range goes through the network again (cycle walking), four times at most on
    average. Sources: Luby and Rackoff 1988, SIAM J. Comput. 17(2); Black and Rogaway 2002, CT-RSA, section 3.

    Args:
        size: how many values, 1 or more.
        key: what decides the order, up to 64 bytes.
    """

    def __init__(self, size: int, key: bytes) -> None:
        assert size > 0
        assert len(key) <= hashlib.blake2b.MAX_KEY_SIZE
        self.size = size
        self._half_bits = max(1, -(-(size - 1).bit_length() // 2))
        self._key = key
        self._rounds = [hashlib.blake2b(bytes([number]), key=key, digest_size=8) for number in range(_ROUNDS)]

    def __reduce__(self) -> tuple[type["Permutation"], tuple[int, bytes]]:
        return Permutation, (self.size, self._key)

    def __call__(self, index: int) -> int:
        """The value at ``index``, from 0 to ``size`` - 1."""
        assert 0 <= index < self.size
        value = self._network(index)
        while value >= self.size:
            value = self._network(value)
        return value

    def _network(self, value: int) -> int:
        mask = (1 << self._half_bits) - 1
        left, right = value >> self._half_bits, value & mask
        for state in self._rounds:
            digest = state.copy()
            digest.update(right.to_bytes(8, "little"))
            left, right = right, left ^ int.from_bytes(digest.digest(), "little") & mask
        return left << self._half_bits | right

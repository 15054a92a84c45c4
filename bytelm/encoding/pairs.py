"""Encodings of 16-bit units in which some characters take a lead and a trail unit, as UTF-16 does with surrogates."""

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.base import INVALID, Encoding
from bytelm.encoding.convert import NUM_CODE_POINTS, ByteData, as_bytes


class PairedUnitEncoding(Encoding):
    """Big-endian 16-bit units; a lead unit and a trail unit together are one word, any other unit is a word alone.

    Leads and trails are disjoint, so at the 2-byte phase every unit tells by itself and its neighbours where words
    begin. A malformed piece is a lead without a trail, a trail without a lead that is no control, a pair or a unit that
    stands for nothing, or what is left of a word at the end of the data.

    Args:
        name: the name in the registry.
        leads: lead units.
        trails: trail units.
        singles: int32[n], values of the units 0, 1, … that are words alone; INVALID where a unit is none.
        pairs: int32[m], values of the pairs, the trail being the low digit.
        controls: units of the controls.
    """

    def __init__(
        self,
        name: str,
        leads: range,
        trails: range,
        singles: NDArray[np.int32],
        pairs: NDArray[np.int32],
        controls: range,
    ) -> None:
        self._leads, self._trails = leads, trails
        self._single = np.full(0x10000, INVALID, dtype=np.int32)
        self._single[: len(singles)] = singles
        self._single[controls.start : controls.stop] = -1 - np.arange(len(controls))
        self._pair = np.full(len(leads) * len(trails), INVALID, dtype=np.int32)
        self._pair[: len(pairs)] = pairs

        words = np.zeros(NUM_CODE_POINTS, dtype=np.uint32)
        lengths = np.zeros(NUM_CODE_POINTS, dtype=np.uint8)
        units = np.flatnonzero(self._single >= 0)
        words[self._single[units]], lengths[self._single[units]] = units << 16, 2
        index = np.arange(len(pairs))
        words[pairs] = (leads.start + index // len(trails)) << 16 | (trails.start + index % len(trails))
        lengths[pairs] = 4
        super().__init__(name, 2, words, lengths, [unit.to_bytes(2, "big") for unit in controls])

    def parse(self, data: ByteData) -> tuple[NDArray[np.int32], NDArray[np.int64]]:  # noqa: D102 - inherited
        array = as_bytes(data)
        units = np.ascontiguousarray(array[: len(array) // 2 * 2]).view(">u2").astype(np.int32)
        lead, trail = _within(units, self._leads), _within(units, self._trails)
        paired = np.flatnonzero(lead[:-1] & trail[1:])  # indices of the leads
        values = self._single[units]
        values[paired] = self._pair[
            (units[paired] - self._leads.start) * len(self._trails) + units[paired + 1] - self._trails.start
        ]
        keep = np.ones(len(units), dtype=np.bool_)
        keep[paired + 1] = False
        values, starts = values[keep], 2 * np.flatnonzero(keep).astype(np.int64)
        if self._unfinished(array) == 1:  # of three bytes, the first two have their entry already
            values = np.append(values, np.int32(INVALID))
            starts = np.append(starts, np.int64(len(array) - 1))
        return values, starts

    def _unfinished(self, data: NDArray[np.uint8]) -> int:
        odd = len(data) % 2
        if len(data) - odd < 2:
            return odd
        last_unit = int(data[-2 - odd]) << 8 | int(data[-1 - odd])
        trail_bytes = range(self._trails.start >> 8, (self._trails.stop - 1 >> 8) + 1)
        if last_unit in self._leads and (not odd or int(data[-1]) in trail_bytes):
            return 2 + odd
        return odd


def _within(units: NDArray[np.int32], block: range) -> NDArray[np.bool_]:
    return (units >= block.start) & (units < block.stop)

"""UTF-32, big-endian: the fixed-length baseline."""

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.base import CONTROL_NAMES, INVALID, Encoding
from bytelm.encoding.convert import ESCAPES, NUM_CODE_POINTS, ByteData, all_values, as_bytes


class Utf32Encoding(Encoding):
    """UTF-32 (big-endian); control k is the unit 0x110000 + k, the first values beyond Unicode, and an escaped byte is
    the unit of its surrogate.

    A malformed piece is a unit that is none of these, or the 1 to 3 bytes after the last unit.
    """

    family = "utf32"

    def __init__(self) -> None:
        values = all_values()
        words = np.zeros(NUM_CODE_POINTS, dtype=np.uint32)
        lengths = np.zeros(NUM_CODE_POINTS, dtype=np.uint8)
        words[values], lengths[values] = values, 4
        controls = [(NUM_CODE_POINTS + k).to_bytes(4, "big") for k in range(len(CONTROL_NAMES))]
        super().__init__("utf32", 4, words, lengths, controls)

    def parse(self, data: ByteData) -> tuple[NDArray[np.int32], NDArray[np.int64]]:  # noqa: D102 - inherited
        array = as_bytes(data)
        starts = np.arange(0, len(array), 4, dtype=np.int64)
        units = np.ascontiguousarray(array[: len(array) // 4 * 4]).view(">u4").astype(np.int64)
        values = np.full(len(starts), INVALID, dtype=np.int64)
        scalar = (units < 0xD800) | (units >= 0xE000) & (units < NUM_CODE_POINTS)
        scalar |= (units >= ESCAPES.start) & (units < ESCAPES.stop)
        control = (units >= NUM_CODE_POINTS) & (units < NUM_CODE_POINTS + len(CONTROL_NAMES))
        values[: len(units)][scalar] = units[scalar]
        values[: len(units)][control] = NUM_CODE_POINTS - 1 - units[control]
        return values.astype(np.int32), starts

    def _unfinished(self, data: NDArray[np.uint8]) -> int:
        return len(data) % 4

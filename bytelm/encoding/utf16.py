"""UTF-16, big-endian, with low surrogates that stand alone as controls."""

import numpy as np

from bytelm.encoding.base import CONTROL_NAMES, INVALID
from bytelm.encoding.convert import ESCAPES, NUM_CODE_POINTS
from bytelm.encoding.pairs import PairedUnitEncoding

_LEADS = range(0xD800, 0xDC00)
_TRAILS = range(0xDC00, 0xE000)


class Utf16Encoding(PairedUnitEncoding):
    """UTF-16 (big-endian, no byte-order mark); where a word must begin, control k is the unit 0xDC00 + k, and the
    escaped byte b the unit 0xDC00 + b, which is its surrogate itself.

    After a high surrogate the same units are the second halves of pairs, as always in UTF-16.
    """

    family = "utf16"

    def __init__(self) -> None:
        singles = np.arange(0x10000, dtype=np.int32)
        singles[_LEADS.start : _TRAILS.stop] = INVALID
        singles[ESCAPES.start : ESCAPES.stop] = ESCAPES
        super().__init__(
            "utf16",
            leads=_LEADS,
            trails=_TRAILS,
            singles=singles,
            pairs=np.arange(0x10000, NUM_CODE_POINTS, dtype=np.int32),
            controls=range(_TRAILS.start, _TRAILS.start + len(CONTROL_NAMES)),
        )

"""Two bytes for each of the 63,416 first ranks, four for the rest."""

from typing import Any

import numpy as np

from bytelm.encoding.base import CONTROL_NAMES
from bytelm.encoding.pairs import PairedUnitEncoding
from bytelm.encoding.ranking import rank_scalars

_CONTROLS = range(0x10000 - len(CONTROL_NAMES), 0x10000)
_TRAILS = range(_CONTROLS.start - 1088, _CONTROLS.start)
_LEADS = range(_TRAILS.start - 1024, _TRAILS.start)


class Ranked2Encoding(PairedUnitEncoding):
    """Frequency-ranked 16-bit units with an escape.

    Rank r < 63,416 is the unit r (big-endian). Then come 1,024 lead units, 1,088 trail units and the 8 controls; a
    later rank is a lead and a trail, as with surrogates, the trail being the low digit.

    Args:
        name: the name in the registry.
        ranked: distinct characters, the most frequent first; all others follow in scalar order.

    Raises:
        EncodingError: ``ranked`` holds a character twice or a lone surrogate.
    """

    family = "ranked2"

    def __init__(self, name: str, ranked: str) -> None:
        self.ranked = ranked
        scalars = rank_scalars(name, ranked).astype(np.int32)
        direct = _LEADS.start
        super().__init__(
            name,
            leads=_LEADS,
            trails=_TRAILS,
            singles=scalars[:direct],
            pairs=scalars[direct:],
            controls=_CONTROLS,
        )

    def _parameters(self) -> dict[str, Any]:
        return {"ranked": self.ranked}

"""Two bytes for each of the first ranks (63,416 with 8 controls), four for the rest."""

from typing import Any

import numpy as np

from bytelm.encoding.base import control_names
from bytelm.encoding.pairs import PairedUnitEncoding
from bytelm.encoding.ranking import lines_of, rank_values

_NUM_LEADS, _NUM_TRAILS = 1024, 1088


class Ranked2Encoding(PairedUnitEncoding):
    """Frequency-ranked 16-bit units with an escape.

    The first ranks are the units 0, 1, … (big-endian). The last units are 1,024 leads, 1,088 trails and the controls; a
    later rank is a lead and a trail, as with surrogates, the trail being the low digit. The 128 escaped bytes come
    last.

    Args:
        name: the name in the registry.
        ranked: distinct characters, the most frequent first; all others follow in scalar order.
        num_controls: number of controls, of one unit each.

    Raises:
        EncodingError: ``num_controls`` is out of range, or ``ranked`` holds a character twice or a lone surrogate.
    """

    family = "ranked2"

    def __init__(self, name: str, ranked: str, num_controls: int = 8) -> None:
        self.ranked = ranked
        values = rank_values(name, ranked).astype(np.int32)
        controls = range(0x10000 - len(control_names(num_controls)), 0x10000)
        trails = range(controls.start - _NUM_TRAILS, controls.start)
        leads = range(trails.start - _NUM_LEADS, trails.start)
        super().__init__(
            name,
            leads=leads,
            trails=trails,
            singles=values[: leads.start],
            pairs=values[leads.start :],
            controls=controls,
        )

    def _parameters(self) -> dict[str, Any]:
        return {"ranked": lines_of(self.ranked)}

"""The one legend of dimension letters, and the aliases that use it.

Every annotation and every name suffix in the project (``q_BHTE``) uses these letters and no others:

``B`` batch · ``L`` byte positions · ``P`` bytes per patch · ``T`` = L/P patch positions · ``S`` cached key positions
· ``D`` width · ``H`` query heads · ``G`` key/value heads · ``E`` head width · ``F`` feed-forward width
· ``V`` vocabulary · ``K`` predicted offsets (LM heads) · ``N`` drafted symbols
· ``R`` states of a decoding block, one after each number of drafted units.

Torch-free layers (``encoding``, ``tokenizer``) write numpy shapes in prose with the same letters.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Windows = Int[Tensor, "B T P"]
"""Byte values, one window of P bytes per patch position."""

Hidden = Float[Tensor, "B T D"]
"""States after the last byte of each window."""

Logits = Float[Tensor, "B V"]
"""Unnormalised log-probabilities of one next symbol per row."""

Symbols = Int[Tensor, "B _"]
"""Symbols (byte values or token ids) emitted or drafted, one row each; emitted and drafted ones differ in number."""

Rows = Bool[Tensor, " B"]
"""A choice of rows."""

Counts = Int[Tensor, " B"]
"""One number per row."""

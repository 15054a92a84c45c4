"""Drafters: what is proposed for the next forward to verify. A drafter changes the speed, never the output."""

import dataclasses

import torch

from bytelm.decoding.protocols import Block, Choose
from bytelm.shapes import Counts, Symbols


@dataclasses.dataclass(frozen=True)
class NoDrafter:
    """Propose nothing: one symbol a forward for laws that verify, a whole patch for those that need no draft."""

    def propose(self, block: Block, emitted: Symbols, counts: Counts, choose: Choose) -> Symbols:
        """Draft (B, 0)."""
        return emitted[:, :0]


@dataclasses.dataclass(frozen=True)
class HeadsDrafter:
    """Propose with the model's further heads, by the rule of emission itself: the same noise at the same position.

    Args:
        num: N, symbols to draft; at most ``Target.max_draft``.
    """

    num: int

    def propose(self, block: Block, emitted: Symbols, counts: Counts, choose: Choose) -> Symbols:
        """Draft (B, N), one after another; rows that have finished get a filler."""
        counts = counts.clamp(min=1)
        drafted = emitted[:, :0]
        for ahead in range(self.num):
            symbol = choose(block.draft_logits(emitted, counts, drafted), ahead)
            drafted = torch.cat((drafted, symbol), dim=1)
        return drafted

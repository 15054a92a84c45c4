"""Targets of a toy law with one error each, to show that checks would notice."""

import torch

from bytelm.testing import ToyTarget
from bytelm.testing.ours import ToyBlock


class OneOffTarget(ToyTarget):
    """Knows the law of every state but the first in the context of the one before."""

    def _block(self, num_drafted):
        block = super()._block(num_drafted)
        contexts = torch.cat((block.contexts[:, :1], block.contexts[:, :-1]), dim=1)
        return ToyBlock(self.law, self.draft_law, self.unit, contexts)


class StaleTarget(ToyTarget):
    """Does not write over the first unit of a forward where something is: a rejected draft stays in the cache."""

    def _write(self, begins_B, symbols):
        columns = (begins_B[:, None] + torch.arange(self.unit)).clamp(min=0)
        stale = self.slots_BS.gather(1, columns)
        super()._write(begins_B, symbols)
        self.slots_BS.scatter_(1, columns, torch.where(stale < 0, self.slots_BS.gather(1, columns), stale))


class LateTarget(ToyTarget):
    """Writes every forward one place late."""

    def _write(self, begins_B, symbols):
        super()._write(begins_B + 1, symbols)


WRONG_TARGETS = [OneOffTarget, StaleTarget, LateTarget]

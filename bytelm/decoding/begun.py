"""A forward that the device was told to run, and what it lets rows emit, on its way to the host."""

import dataclasses

import torch

from bytelm.decoding.emission import Emission
from bytelm.decoding.protocols import Block, Draft, JoiningBlock, RowIndices
from bytelm.decoding.transfer import to_host


@dataclasses.dataclass
class Begun:
    """One forward, from the moment that the device was told all of it.

    Args:
        block: what it makes known.
        draft: what it is run on.
        emission: what it lets every row emit.
        copied: whether what is fetched must be copied on a CPU, too, since later forwards overwrite it.
    """

    block: Block
    draft: Draft
    emission: Emission
    copied: bool = False

    def __post_init__(self) -> None:
        self._emission = Emission(*(to_host(part, copied=self.copied) for part in self.emission))
        proposed = None if self.draft.proposed is None else to_host(self.draft.proposed, copied=self.copied)
        self._draft = Draft(to_host(self.draft.symbols, copied=self.copied), proposed, source=self.draft.source)
        self._event = None
        if self.emission.symbols.is_cuda:
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(self.emission.symbols.device))

    def fetch(self) -> tuple[Emission, Draft]:
        """Emission and draft on the CPU, the draft without its distributions; waits for the device."""
        if self._event is not None:
            self._event.synchronize()
        return self._emission, self._draft

    def select(self, rows: RowIndices) -> "Begun":
        """The same forward of these rows, before a later one."""
        return Begun(self.block.select(rows), self.draft.select(rows), self.emission.select(rows), self.copied)

    def join(self, other: "Begun") -> "Begun":
        """The rows of this forward and then those of another; both are in the books, so their drafts are forgotten."""
        assert isinstance(self.block, JoiningBlock)
        emission = self.emission.join(other.emission)
        return Begun(self.block.join(other.block), Draft(emission.symbols[:, :0]), emission, self.copied)

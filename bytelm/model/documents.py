"""Where documents begin in windows that were cut from a stream of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from jaxtyping import Bool
from torch import Tensor

from bytelm.nn.document_view import DocumentView
from bytelm.shapes import Windows

Boundaries = Callable[[Windows], DocumentView]
"""From the windows of a forward to what each of its positions sees."""


@final
@dataclass(frozen=True)
class DocumentBoundaries:
    """Documents told apart by the BOS before them.

    In the stream a document is its BOS bytes, its text and EOS, and the next follows at once, at any byte of a patch. A
    document begins with the first BOS byte of a run, and a patch belongs to the document of its *first* byte. So a
    patch in which one document ends and another begins is the last of the first one, whose text it holds; the other
    begins with the next patch, of which all bytes are its own, short of up to P - 1 bytes of BOS. That is how a prompt
    begins in generation, in every phase. The state after a shared patch still predicts, as without boundaries, the
    patch that follows it in the stream.

    A window that was cut inside of a document begins with what is left of it, at position 0.

    Args:
        bos: the symbol that stands before documents, and nowhere in text.
    """

    bos: int

    def __call__(self, windows_BTP: Windows) -> DocumentView:
        """What each position of consecutive windows sees."""
        return DocumentView(self.starts(windows_BTP))

    def starts(self, windows_BTP: Windows) -> Bool[Tensor, "B T"]:
        """The patches with which a document begins; the first of a row is one of them."""
        is_bos = windows_BTP.flatten(1) == self.bos
        begins = is_bos.clone()
        begins[:, 1:] &= ~is_bos[:, :-1]
        document_BT = begins.cumsum(1)[:, :: windows_BTP.shape[-1]]
        starts_BT = document_BT.new_ones(document_BT.shape, dtype=begins.dtype)
        starts_BT[:, 1:] = document_BT[:, 1:] != document_BT[:, :-1]
        return starts_BT

"""Where a text has been before: what followed the longest matches of its end."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from bytelm.nn import native
from bytelm.nn.windows import ABSENT

_MOST = 1 << 26
"""The most comparisons whose results are held at once."""


class Matches:
    """The symbols that followed the longest matches of the end of a text (the match model of Mahoney 2005, "Adaptive
    weighing of context models for lossless data compression"; as a part of a neural model cf. the n-gram
    heads of Akyürek et al. 2024, arXiv:2401.12973).

    A match is a place whose symbols before it are the last ones of the text; its length is how many are, at most the
    last of ``lengths``. The first candidate is the symbol at the place with the longest match, the latest of equals;
    each other one that of the longest match with another symbol than those before it. Each reads a row of a table, by
    its symbol and by the largest of ``lengths`` that its match reaches; one without a match reads a row of its own.

    Args:
        lengths: ascending; shorter matches than the first do not count.
        candidates: C.
        reach: how many symbols before the patch that is predicted are looked at.
        symbols: rows of each length; symbol s has row ``s % symbols``.
    """

    def __init__(self, lengths: Sequence[int], candidates: int, reach: int, symbols: int) -> None:
        self.lengths, self.candidates, self.reach, self.symbols = tuple(lengths), candidates, reach, symbols
        self._lengths = torch.tensor(self.lengths, device="cpu")  # as the native core reads them

    @property
    def rows_of_each(self) -> int:
        """Rows of each candidate."""
        return 1 + len(self.lengths) * self.symbols

    @property
    def num_rows(self) -> int:
        """Rows of all candidates."""
        return self.candidates * self.rows_of_each

    @property
    def addresses(self) -> tuple[int, int, int, int, int]:
        """What the native core is told: where the lengths are, how many, C, reach and symbols."""
        return self._lengths.data_ptr(), len(self.lengths), self.candidates, self.reach, self.symbols

    def rows_of(self, window_B_: Int[Tensor, "*B _"], prefix_BN: Int[Tensor, "*B N"]) -> Int[Tensor, "*B _"]:
        """The row of each candidate after a window and, behind it, a prefix of the patch."""
        for_core = window_B_.is_cpu and window_B_.dtype == prefix_BN.dtype == torch.int64
        if native.core is not None and for_core and not native.is_watched():
            return self._in_core(window_B_, prefix_BN)
        window_B_ = window_B_[..., -self.reach :]
        most = window_B_.shape[-1] + prefix_BN.shape[-1]
        batch = window_B_.shape[:-1]
        text_BN = torch.cat((window_B_, prefix_BN), dim=-1).reshape(-1, most)
        pieces = text_BN.split(max(1, _MOST // (most * self.lengths[-1])))
        return torch.cat([self._find(piece) for piece in pieces]).view(*batch, self.candidates)

    def _find(self, text_BN: Int[Tensor, "_ N"]) -> Int[Tensor, "_ _"]:
        """The rows, each found by comparing all places."""
        longest, num = self.lengths[-1], text_BN.shape[-1]
        padded = F.pad(text_BN, (longest, 0), value=ABSENT)
        tail_B_ = padded[:, -longest:]
        before_BN_ = padded[:, :-1].unfold(1, longest, 1)  # what is before each place
        same_BN_ = (before_BN_ == tail_B_[:, None]) & (tail_B_ != ABSENT)[:, None]
        lengths_BN = same_BN_.flip(-1).cumprod(-1, dtype=torch.int32).sum(-1)
        places = torch.arange(num, device=text_BN.device)
        rows = list[Tensor]()
        for first in range(0, self.num_rows, self.rows_of_each):
            best_B1 = (lengths_BN * num + places).argmax(-1, keepdim=True)
            symbol_B1, length_B1 = text_BN.gather(1, best_B1), lengths_BN.gather(1, best_B1)
            step_B1 = torch.stack([length_B1 >= least for least in self.lengths]).sum(0) - 1
            row_B1 = 1 + step_B1 * self.symbols + symbol_B1 % self.symbols
            rows.append(first + torch.where(step_B1 >= 0, row_B1, 0))
            lengths_BN = lengths_BN.masked_fill(text_BN == symbol_B1, 0)
        return torch.cat(rows, dim=-1)

    def _in_core(self, window_B_: Int[Tensor, "*B _"], prefix_BN: Int[Tensor, "*B N"]) -> Int[Tensor, "*B _"]:
        """The same in the native core, which reads windows that overlap as they lie."""
        assert native.core is not None
        if window_B_.dim() != 3 or window_B_.stride(-1) != 1:
            window_B_ = window_B_.contiguous()
        batch, width = window_B_.shape[:-1], window_B_.shape[-1]
        rows = prefix_BN.new_empty(*batch, self.candidates)
        num = rows.numel() // self.candidates
        lies = (batch[1], *window_B_.stride()[:2]) if window_B_.dim() == 3 else (max(1, num), 0, width)
        prefix_BN = prefix_BN.contiguous()
        native.core.matches(
            (window_B_.data_ptr(), *lies, width),
            (prefix_BN.data_ptr(), prefix_BN.shape[-1]),
            self.addresses,
            rows.data_ptr(),
            num,
            torch.get_num_threads(),
        )
        return rows

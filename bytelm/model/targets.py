"""A byte model under one law, as the decoding loop sees it: prompts in, blocks of logits out, a cache in between."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.errors import DecodingError
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import Law
from bytelm.nn.kv_cache import CacheView, KVCache
from bytelm.shapes import Counts, Logits, Rows, Symbols

_AnyNumber = Int[Tensor, "B _"]
"""Symbols whose number per row has nothing to do with the N of other arguments."""


class PatchBlock:
    """One state per row and the P symbols that its heads know the law of."""

    def __init__(self, model: ByteLM, h_BD: Float[Tensor, "B D"], window_BP: Int[Tensor, "B P"]) -> None:
        self.model, self.h_BD, self.window_BP = model, h_BD, window_BP
        self.width = model.config.patch

    def logits(self, emitted: Symbols) -> Logits:
        """Head N + 1, given the N symbols emitted (independent heads do not look at them)."""
        return self.model.heads.step(self.h_BD, self.window_BP, emitted)

    def covers(self, emitted: Symbols) -> Rows:
        """All rows: nothing was assumed."""
        return torch.ones(len(emitted), dtype=torch.bool, device=emitted.device)

    def draft_logits(self, emitted: Symbols, counts: Counts, drafted: _AnyNumber) -> Logits:
        """Not to be called: ``max_draft`` is 0."""
        raise AssertionError("product and chain verify no draft")


class NextBlock:
    """States after the last committed byte and after each drafted one; head 1 of each is the law of one symbol."""

    def __init__(
        self, model: ByteLM, h_BND: Float[Tensor, "B _ D"], windows_BNP: Int[Tensor, "B _ P"], draft: Symbols
    ) -> None:
        self.model, self.h_BND, self.windows_BNP, self.draft = model, h_BND, windows_BNP, draft
        self.width = h_BND.shape[1]

    def logits(self, emitted: Symbols) -> Logits:
        """Head 1 of the state after the N-th drafted symbol."""
        n = emitted.shape[1]
        return self.model.heads.step(self.h_BND[:, n], self.windows_BNP[:, n], emitted[:, :0])

    def covers(self, emitted: Symbols) -> Rows:
        """Rows whose draft so far is what was emitted."""
        return (emitted == self.draft[:, : emitted.shape[1]]).all(dim=1)

    def draft_logits(self, emitted: Symbols, counts: Counts, drafted: _AnyNumber) -> Logits:
        """Head N + 2 of the state that gave the last emitted symbol, after that symbol and the N drafted ones."""
        rows = torch.arange(len(emitted), device=emitted.device)
        last = (counts - 1).clamp(min=0)
        prefix = torch.cat((emitted[rows, last, None], drafted), dim=1)
        return self.model.heads.step(self.h_BND[rows, last], self.windows_BNP[rows, last], prefix)


def make_target(model: ByteLM, law: Law, bos_patch: NDArray[np.uint8]) -> "PatchTarget | NextTarget":
    """The target of ``law``; ``bos_patch`` (P bytes) is put before every prompt."""
    match law:
        case "product" | "chain":
            return PatchTarget(model, bos_patch)
        case "next":
            return NextTarget(model, bos_patch)


def _with_bos(
    model: ByteLM, bos_patch: NDArray[np.uint8], prompts: Sequence[NDArray[np.uint8]], num_new: int
) -> list[NDArray[np.uint8]]:
    """Prompts with their BOS patch, after a check that they fit."""
    assert len(bos_patch) == model.config.patch
    for r, prompt in enumerate(prompts):
        total = len(bos_patch) + len(prompt) + num_new
        if total > model.config.context:
            raise DecodingError(
                f"prompt {r}: {len(bos_patch)} bytes of BOS, {len(prompt)} of prompt and {num_new} new ones make"
                f" {total}, expected at most the model's context of {model.config.context} bytes"
            )
    return [np.concatenate((bos_patch, prompt)) for prompt in prompts]


class PatchTarget:
    """``product`` and ``chain``: one stream per row, aligned to the end of its prompt; P symbols per forward."""

    max_draft = 0

    def __init__(self, model: ByteLM, bos_patch: NDArray[np.uint8]) -> None:
        self.model, self.bos_patch, self.device = model, bos_patch, model.device
        self.cache: KVCache
        self.positions_B: Int[Tensor, " B"]
        self.num_slots = 0

    def start(self, prompts: Sequence[NDArray[np.uint8]], num_new: int) -> PatchBlock:
        """Read the prompts; see :class:`bytelm.decoding.protocols.Target`."""
        patch, device = self.model.config.patch, self.model.device
        streams = [
            row[len(row) % patch :].reshape(-1, patch)
            for row in _with_bos(self.model, self.bos_patch, prompts, num_new)
        ]
        lengths = torch.tensor([len(s) for s in streams], device=device)
        longest = max(len(s) for s in streams)
        windows_BTP = _padded(streams, longest, device)
        self.cache = self.model.new_cache(len(streams), longest + -(-num_new // patch))
        rows = torch.arange(len(streams), device=device)
        positions = torch.arange(longest, device=device).expand(len(streams), -1)
        h_BTD = self.model(windows_BTP, CacheView(self.cache, rows, positions, longest))
        self.positions_B, self.num_slots = lengths, longest
        return PatchBlock(self.model, h_BTD[rows, lengths - 1], windows_BTP[rows, lengths - 1])

    def advance(self, emitted: Symbols, counts: Counts, draft: _AnyNumber) -> PatchBlock:
        """Commit whole patches; a row that emitted less has finished, and stands still."""
        assert draft.shape[1] == 0
        whole = counts == self.model.config.patch
        positions_B1 = self.positions_B.clamp(max=self.cache.capacity - 1)[:, None]
        self.num_slots = min(self.num_slots + 1, self.cache.capacity)
        rows = torch.arange(len(emitted), device=emitted.device)
        view = CacheView(self.cache, rows, positions_B1, self.num_slots)
        h_BTD = self.model(emitted[:, None, :], view)
        self.positions_B = self.positions_B + whole
        return PatchBlock(self.model, h_BTD[:, 0], emitted)


class NextTarget:
    """``next``: P streams per row, one per phase; the states of N + 1 bytes in one forward of batch B x (N + 1).

    Row b has cache rows ``P b … P b + P - 1``; stream s holds the windows that begin at bytes s, s + P, …. All
    committed bytes but the last have been read; each forward reads that one and the draft after it.
    """

    def __init__(self, model: ByteLM, bos_patch: NDArray[np.uint8]) -> None:
        self.model, self.bos_patch, self.device = model, bos_patch, model.device
        self.max_draft = model.config.patch - 1
        self.cache: KVCache
        self.bytes_BL: Int[Tensor, "B L"]
        self.lengths_B: Int[Tensor, " B"]
        self.longest = 0

    def start(self, prompts: Sequence[NDArray[np.uint8]], num_new: int) -> NextBlock:
        """Read the prompts in all phases; see :class:`bytelm.decoding.protocols.Target`."""
        patch, device = self.model.config.patch, self.model.device
        strings = _with_bos(self.model, self.bos_patch, prompts, num_new)
        streams = [
            row[s : s + (len(row) - s) // patch * patch].reshape(-1, patch) for row in strings for s in range(patch)
        ]
        slots = max(len(s) for s in streams)
        self.longest = max(len(row) for row in strings)
        room = self.longest + num_new + patch
        self.bytes_BL = torch.zeros((len(strings), room), dtype=torch.int64, device=device)
        for r, row in enumerate(strings):
            self.bytes_BL[r, : len(row)] = torch.from_numpy(row.astype(np.int64))
        self.lengths_B = torch.tensor([len(row) for row in strings], device=device)
        self.cache = self.model.new_cache(len(streams), -(-room // patch))
        positions = torch.arange(slots, device=device).expand(len(streams), -1)
        cache_rows = torch.arange(len(streams), device=device)
        windows = _padded(streams, slots, device)
        h = self.model(windows, CacheView(self.cache, cache_rows, positions, slots))
        stream, slot = self._place(self.lengths_B - 1)
        rows = torch.arange(len(strings), device=device) * patch + stream
        h_B1D, windows_B1P = h[rows, slot][:, None], windows[rows, slot][:, None]
        return NextBlock(self.model, h_B1D, windows_B1P, self.bytes_BL[:, :0])

    def advance(self, emitted: Symbols, counts: Counts, draft: _AnyNumber) -> NextBlock:
        """Commit, then read the last committed byte and the draft: N + 1 windows, each in a stream of its own."""
        patch, batch, num_read = self.model.config.patch, len(emitted), draft.shape[1] + 1
        assert num_read <= patch
        rows_B1 = torch.arange(batch, device=emitted.device)[:, None]
        # Columns past a row's count land where its draft, or its next symbols, will overwrite them.
        self._write(rows_B1, self.lengths_B, emitted)
        self.lengths_B = self.lengths_B + counts
        self.longest = min(self.longest + emitted.shape[1], self.bytes_BL.shape[1] - patch)
        self._write(rows_B1, self.lengths_B, draft)
        ends_BN = self.lengths_B[:, None] - 1 + torch.arange(num_read, device=emitted.device)
        window_offsets = torch.arange(1 - patch, 1, device=emitted.device)
        windows_BNP = self.bytes_BL[rows_B1[..., None], ends_BN[..., None] + window_offsets]
        stream_BN, slot_BN = self._place(ends_BN)
        cache_rows = (rows_B1 * patch + stream_BN).flatten()
        # All streams at once are read in cache order, so that the cache is a view and not a copy.
        order = cache_rows.argsort() if num_read == patch else torch.arange(len(cache_rows), device=emitted.device)
        num_slots = min(-(-(self.longest + num_read) // patch), self.cache.capacity)
        view = CacheView(self.cache, cache_rows[order], slot_BN.flatten()[order, None], num_slots)
        h = self.model(windows_BNP.flatten(0, 1)[order, None], view)[:, 0]
        h_BND = torch.empty_like(h).index_copy_(0, order, h).view(batch, num_read, -1)
        return NextBlock(self.model, h_BND, windows_BNP, draft)

    def _place(self, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Stream and slot of the window that ends at byte ``ends``."""
        begins = ends - (self.model.config.patch - 1)
        return begins % self.model.config.patch, begins // self.model.config.patch

    def _write(self, rows_B1: Tensor, begins_B: Tensor, symbols: Symbols) -> None:
        columns = begins_B[:, None] + torch.arange(symbols.shape[1], device=symbols.device)
        self.bytes_BL[rows_B1, columns.clamp(max=self.bytes_BL.shape[1] - 1)] = symbols.long()


def _padded(streams: Sequence[NDArray[np.uint8]], num_windows: int, device: torch.device) -> Int[Tensor, "B T P"]:
    """Streams of different numbers of windows as one tensor; what follows a stream's end is never looked at."""
    out = np.zeros((len(streams), num_windows, streams[0].shape[1]), np.int64)
    for r, stream in enumerate(streams):
        out[r, : len(stream)] = stream
    return torch.from_numpy(out).to(device)

"""A byte model under one law, as the decoding loop sees it: prompts in, blocks of logits out, a cache in between."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.compilation import compiled as compile_once
from bytelm.errors import DecodingError
from bytelm.model.blocks import StatesBlock
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import Law, PromptAttention
from bytelm.nn.kv_cache import CacheView, KVCache
from bytelm.shapes import Counts, Hidden, Symbols, Windows

_Positions = Int[Tensor, "B T"]
_AnyNumber = Int[Tensor, "B _"]
"""Symbols whose number per row has nothing to do with the N of other arguments."""

PREFILL_CHUNK = 512
"""Patch positions of a prompt that are read in one forward."""

_SLOT_STEP = 128


def make_target(
    model: ByteLM,
    law: Law,
    bos_patch: NDArray[Any],
    *,
    compiled: bool = False,
    attention: PromptAttention | None = None,
) -> "PatchTarget | NextTarget":
    """The target of ``law``; ``bos_patch`` (at least P bytes) is put before every prompt.

    Args:
        bos_patch: of the model's symbols; for P = 1 it may be empty, and a prompt must then not be.
        compiled: run forwards of the body through ``torch.compile``.
        attention: what the positions of a prompt see; by default what the model was trained with. ``prefix`` for P = 1.
    """
    match law:
        case "next" if model.config.patch == 1:
            return PatchTarget(model, bos_patch, compiled=compiled, attention=attention or model.config.prompt)
        case "product" | "chain":
            return PatchTarget(model, bos_patch, compiled=compiled)
        case "next":
            return NextTarget(model, bos_patch, compiled=compiled)


class _StreamTarget:
    """What the targets share: checks, the reading of prompts in chunks, the forward over cached streams.

    Attributes:
        max_guess: symbols that the model can guess beyond its law, for :class:`~bytelm.decoding.HeadsDrafter`.
        attention: what the positions of a prompt see.
    """

    unit: int
    max_guess: int

    def __init__(self, model: ByteLM, bos_patch: NDArray[Any], *, compiled: bool = False) -> None:
        assert len(bos_patch) >= model.config.patch or (len(bos_patch) == 0 and model.config.patch == 1)
        self.model, self.bos_patch, self.device = model, bos_patch, model.device
        self.vocab_size, self.patch = model.config.vocab_size, model.config.patch
        self.fixed_shapes = compiled
        self.attention: PromptAttention = "causal"
        self.cache: KVCache
        self._slots_B: Int[Tensor, " B"]
        self._forward: _Forward = compile_once(_forward) if compiled else _forward

    def new(self) -> "_StreamTarget":
        """A target of the same model and law that holds no rows yet."""
        return copy.copy(self)  # of which ``start`` replaces what is of a batch

    def check_fits(self, prompts: Sequence[NDArray[Any]], num_new: int | Sequence[int]) -> None:
        """Refuse prompts that with their new symbols are longer than the model's context.

        Raises:
            DecodingError: names the row.
        """
        context = self.model.config.context
        for r, (prompt, new) in enumerate(zip(prompts, _by_row(num_new, len(prompts)).tolist(), strict=True)):
            bos, unit = len(self.bos_patch), "tokens" if self.patch == 1 else "bytes"
            total = bos + len(prompt) + new
            if total > context:
                raise DecodingError(
                    f"prompt {r}: {bos} {unit} of BOS, {len(prompt)} of prompt and {new} new ones make {total},"
                    f" expected at most the model's context of {context} {unit}"
                )
            if bos + len(prompt) == 0:
                raise DecodingError(f"prompt {r}: found no symbols and no BOS, expected at least one of them")

    def _with_bos(self, prompts: Sequence[NDArray[Any]], num_new: int | Sequence[int]) -> list[NDArray[Any]]:
        """Prompts with their BOS patch, after a check that they fit."""
        self.check_fits(prompts, num_new)
        return [np.concatenate((self.bos_patch, prompt)) for prompt in prompts]

    def _prefill(self, streams: Sequence[NDArray[Any]], capacity: int, pick: Int[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """Read streams of windows into a new cache, some hundred positions at a time.

        Args:
            streams: (T, P) windows of each cache row, of any T.
            capacity: slots per row.
            pick: the position of each stream whose state is returned.
        """
        longest = max(len(stream) for stream in streams)
        windows_BTP = _padded(streams, longest, self.patch, self.device)
        self.cache = self.model.new_cache(len(streams), max(capacity, longest))
        picked, rows = None, torch.arange(len(streams), device=self.device)
        prefix = self.attention == "prefix"
        chunk = longest if prefix else PREFILL_CHUNK  # what sees a whole prompt must be read with it
        for begin in range(0, longest, chunk):
            piece = windows_BTP[:, begin : begin + chunk]
            positions = torch.arange(begin, begin + piece.shape[1], device=self.device).expand(len(streams), -1)
            last_seen = torch.maximum(positions, pick[:, None]) if prefix else None
            h_BTD = _forward(self.model, piece, self.cache, None, positions, begin + piece.shape[1], last_seen)
            found = h_BTD[rows, (pick - begin).clamp(0, piece.shape[1] - 1)]
            inside = ((pick >= begin) & (pick < begin + piece.shape[1]))[:, None]
            picked = found if picked is None else torch.where(inside, found, picked)
        assert picked is not None
        return picked

    def _read(
        self, windows_BTP: Windows, rows: Int[Tensor, " B"] | None, positions: _Positions, num_slots: int
    ) -> Hidden:
        """States of new windows. Compiled, slots are read in steps, so that few numbers of slots occur."""
        if self.fixed_shapes:
            num_slots = -(-num_slots // _SLOT_STEP) * _SLOT_STEP
        return self._forward(self.model, windows_BTP, self.cache, rows, positions, min(num_slots, self.cache.capacity))


class PatchTarget(_StreamTarget):
    """``product`` and ``chain``: one stream per row, aligned to the end of its prompt; P symbols a state.

    All committed patches have been read. A forward reads the last committed one once more where a draft follows it
    only if it was not part of the draft before; drafted patches are read in the slots after it.
    """

    def __init__(
        self,
        model: ByteLM,
        bos_patch: NDArray[Any],
        *,
        compiled: bool = False,
        attention: PromptAttention = "causal",
    ) -> None:
        super().__init__(model, bos_patch, compiled=compiled)
        self.unit, self.attention = model.config.patch, attention
        self.max_guess = 0 if model.next_patch is None else 4 * self.unit
        if model.draft_heads is not None:
            self.max_guess = model.draft_heads.num_heads
        self._last_B: Int[Tensor, " B"]
        self._longest = 0

    def start(self, prompts: Sequence[NDArray[Any]], num_new: int | Sequence[int], max_draft: int) -> StatesBlock:
        """Read the prompts; see :class:`bytelm.decoding.protocols.Target`."""
        streams = [row[len(row) % self.patch :].reshape(-1, self.patch) for row in self._with_bos(prompts, num_new)]
        lengths = np.array([len(stream) for stream in streams])
        slots = lengths - -_by_row(num_new, len(prompts)) // self.patch + max_draft // self.patch
        self._last_B = torch.from_numpy(lengths - 1).to(self.device)
        self._slots_B = torch.from_numpy(slots).to(self.device)
        self._longest = int(lengths.max())
        h_BD = self._prefill(streams, int(slots.max()), self._last_B)
        last = torch.from_numpy(np.stack([stream[-1] for stream in streams]).astype(np.int64)).to(self.device)
        return StatesBlock(self.model, self.unit, h_BD[:, None], last[:, None])

    def advance(self, emitted: Symbols, counts: Counts, draft: _AnyNumber) -> StatesBlock:
        """Commit whole patches, then read the last of them and the drafted ones after it."""
        patches = counts // self.patch
        last = (patches - 1).clamp(min=0)[:, None] * self.patch + torch.arange(self.patch, device=self.device)
        windows_BTP = torch.cat((emitted.gather(1, last), draft), dim=1).unflatten(1, (-1, self.patch))
        self._last_B = self._last_B + patches
        num_read = windows_BTP.shape[1]
        self._longest = min(self._longest + emitted.shape[1] // self.patch, self.cache.capacity)
        ahead = torch.arange(num_read, device=self.device)
        positions = (self._last_B[:, None] + ahead).clamp(max=self.cache.capacity - 1)
        h_BTD = self._read(windows_BTP, None, positions, self._longest + num_read - 1)
        return StatesBlock(self.model, self.unit, h_BTD, windows_BTP)

    def select(self, rows: Int[Tensor, " _"]) -> None:
        """Keep these rows."""
        self.cache.select(rows)
        self._last_B, self._slots_B = self._last_B[rows], self._slots_B[rows]

    def join(self, other: "PatchTarget") -> None:
        """Take up the rows of another; see :class:`bytelm.decoding.protocols.Target`."""
        self._last_B = torch.cat((self._last_B, other._last_B))
        self._slots_B = torch.cat((self._slots_B, other._slots_B))
        self._longest = int(self._last_B.max()) + 1
        self.cache.join(other.cache, int(self._slots_B.max()))

    def rewind(self, counts: Counts) -> None:
        """Forget the last patches."""
        self._last_B = self._last_B - counts // self.patch


class NextTarget(_StreamTarget):
    """``next``: P streams per row, one per phase; the states of N + 1 bytes in one forward.

    Row b has cache rows ``P b … P b + P - 1``; stream s holds the windows that begin at bytes s, s + P, …. All
    committed bytes but the last have been read; each forward reads that one and the draft after it. Up to P windows
    lie in streams of their own; more of them follow each other in all streams.
    """

    def __init__(self, model: ByteLM, bos_patch: NDArray[Any], *, compiled: bool = False) -> None:
        super().__init__(model, bos_patch, compiled=compiled)
        self.unit = 1
        self.max_guess = self.patch - 1
        self._bytes_BL: Int[Tensor, "B L"]
        self._lengths_B: Int[Tensor, " B"]
        self._longest = 0

    def start(self, prompts: Sequence[NDArray[Any]], num_new: int | Sequence[int], max_draft: int) -> StatesBlock:
        """Read the prompts in all phases; see :class:`bytelm.decoding.protocols.Target`."""
        patch, device = self.patch, self.device
        strings = self._with_bos(prompts, num_new)
        streams = [
            row[s : s + (len(row) - s) // patch * patch].reshape(-1, patch) for row in strings for s in range(patch)
        ]
        lengths = np.array([len(row) for row in strings])
        self._longest = int(lengths.max())
        needed = -(-(lengths + _by_row(num_new, len(strings)) + max_draft) // patch) + 1
        slots = int(needed.max())
        self._slots_B = torch.from_numpy(needed).to(device)
        data = np.zeros((len(strings), slots * patch), np.int64)
        for r, row in enumerate(strings):
            data[r, : len(row)] = row
        self._bytes_BL = torch.from_numpy(data).to(device)
        self._lengths_B = torch.from_numpy(lengths).to(device)
        stream, slot = self._place(self._lengths_B - 1)
        h = self._prefill(streams, slots, slot.repeat_interleave(patch))
        rows = torch.arange(len(strings), device=device)
        ends = self._lengths_B[:, None] - patch + torch.arange(patch, device=device)
        windows_BP = self._bytes_BL.gather(1, ends)
        return StatesBlock(self.model, 1, h[rows * patch + stream][:, None], windows_BP[:, None])

    def advance(self, emitted: Symbols, counts: Counts, draft: _AnyNumber) -> StatesBlock:
        """Commit, then read the last committed byte and the draft."""
        patch, num_read = self.patch, draft.shape[1] + 1
        # Columns past a row's count land where its draft, or its next symbols, will overwrite them.
        self._write(self._lengths_B, emitted)
        self._lengths_B = self._lengths_B + counts
        self._longest = min(self._longest + emitted.shape[1], self._bytes_BL.shape[1])
        self._write(self._lengths_B, draft)
        # More windows than streams are read in all streams at once, and their number is filled up.
        num_windows = num_read if num_read <= patch else -(-num_read // patch) * patch
        ends_BN = self._lengths_B[:, None] - 1 + torch.arange(num_windows, device=self.device)
        ends_BN = ends_BN.clamp(max=self._bytes_BL.shape[1] - 1)
        rows_B = torch.arange(len(emitted), device=self.device)
        offsets = torch.arange(1 - patch, 1, device=self.device)
        windows_BNP = self._bytes_BL[rows_B[:, None, None], ends_BN[..., None] + offsets]
        num_slots = -(-(self._longest + num_windows) // patch)
        read = self._read_all if num_windows % patch == 0 else self._read_some
        h_BND = read(windows_BNP, ends_BN, num_slots)
        return StatesBlock(self.model, 1, h_BND[:, :num_read], windows_BNP[:, :num_read])

    def _read_some(
        self, windows_BNP: Int[Tensor, "B N P"], ends_BN: Int[Tensor, "B N"], num_slots: int
    ) -> Float[Tensor, "B N D"]:
        """Fewer windows than streams: each in a stream of its own, whose slots are gathered."""
        rows_B1 = torch.arange(len(ends_BN), device=self.device)[:, None]
        stream_BN, slot_BN = self._place(ends_BN)
        cache_rows = (rows_B1 * self.patch + stream_BN).flatten()
        h = self._read(windows_BNP.flatten(0, 1)[:, None], cache_rows, slot_BN.flatten()[:, None], num_slots)
        return h[:, 0].unflatten(0, ends_BN.shape)

    def _read_all(
        self, windows_BNP: Int[Tensor, "B N P"], ends_BN: Int[Tensor, "B N"], num_slots: int
    ) -> Float[Tensor, "B N D"]:
        """Whole rounds of the streams: all cache rows in order, read in place, T = N / P windows in each."""
        patch = self.patch
        rows_B1 = torch.arange(len(ends_BN), device=self.device)[:, None]
        first_B1, _ = self._place(ends_BN[:, :1])
        of_stream = (torch.arange(patch, device=self.device) - first_B1) % patch  # (B, P): the window of each stream
        windows = windows_BNP.unflatten(1, (-1, patch))  # (B, T, P windows, P)
        slots = self._place(ends_BN)[1].unflatten(1, (-1, patch))
        by_stream = windows.transpose(1, 2)[rows_B1, of_stream].flatten(0, 1)
        positions = slots.transpose(1, 2)[rows_B1, of_stream].flatten(0, 1)
        h = self._read(by_stream, None, positions, num_slots).unflatten(0, (len(ends_BN), patch))
        of_window = (first_B1 + torch.arange(patch, device=self.device)) % patch
        return h[rows_B1, of_window].transpose(1, 2).flatten(1, 2)

    def select(self, rows: Int[Tensor, " _"]) -> None:
        """Keep these rows, with all their streams."""
        self.cache.select((rows[:, None] * self.patch + torch.arange(self.patch, device=self.device)).flatten())
        self._bytes_BL, self._lengths_B = self._bytes_BL[rows], self._lengths_B[rows]
        self._slots_B = self._slots_B[rows]

    def join(self, other: "NextTarget") -> None:
        """Take up the rows of another, with all their streams; see :class:`bytelm.decoding.protocols.Target`."""
        self._lengths_B = torch.cat((self._lengths_B, other._lengths_B))
        self._slots_B = torch.cat((self._slots_B, other._slots_B))
        self._longest, slots = int(self._lengths_B.max()), int(self._slots_B.max())
        width = slots * self.patch
        parts = [part[:, :width] for part in (self._bytes_BL, other._bytes_BL)]
        self._bytes_BL = torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])
        self.cache.join(other.cache, slots)

    def rewind(self, counts: Counts) -> None:
        """Forget the last bytes."""
        self._lengths_B = self._lengths_B - counts

    def _place(self, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Stream and slot of the window that ends at byte ``ends``."""
        begins = ends - (self.patch - 1)
        return begins % self.patch, begins // self.patch

    def _write(self, begins_B: Tensor, symbols: Symbols) -> None:
        columns = begins_B[:, None] + torch.arange(symbols.shape[1], device=self.device)
        self._bytes_BL.scatter_(1, columns.clamp(max=self._bytes_BL.shape[1] - 1), symbols)


_Forward = Callable[..., Hidden]


def _forward(
    model: ByteLM,
    windows_BTP: Windows,
    cache: KVCache,
    rows: Int[Tensor, " B"] | None,
    positions: _Positions,
    num_slots: int,
    last_seen: _Positions | None = None,
) -> Hidden:
    return model(windows_BTP, CacheView(cache, rows, positions, num_slots, last_seen))


def _by_row(num_new: int | Sequence[int], num_rows: int) -> NDArray[np.int64]:
    """How many new symbols each row may commit."""
    return np.broadcast_to(np.asarray(num_new, dtype=np.int64), num_rows)


def _padded(
    streams: Sequence[NDArray[Any]], num_windows: int, patch: int, device: torch.device
) -> Int[Tensor, "B T P"]:
    """Streams of different numbers of windows as one tensor; what follows a stream's end is never looked at."""
    out = np.zeros((len(streams), num_windows, patch), np.int64)
    for r, stream in enumerate(streams):
        out[r, : len(stream)] = stream
    return torch.from_numpy(out).to(device)

"""A byte model under one law, as the decoding loop sees it: prompts in, blocks of logits out, a cache in between."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.compilation import compiled as compile_once
from bytelm.errors import DecodingError
from bytelm.graphs import Graphs, TensorInPlace
from bytelm.model.blocks import StatesBlock
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import PromptAttention
from bytelm.model.ends import Law
from bytelm.model.reading import Forward, forward, num_windows, place, read_bytes, read_patches, windows_at
from bytelm.nn.kv_cache import KVCache
from bytelm.nn.windows import ABSENT
from bytelm.shapes import Counts, Symbols

_T = TypeVar("_T")

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
    graphs: Graphs | None = None,
) -> "PatchTarget | NextTarget":
    """The target of ``law``; ``bos_patch`` (at least P bytes) is put before every prompt.

    Args:
        bos_patch: of the model's symbols; for P = 1 it may be empty, and a prompt must then not be.
        compiled: run forwards of the body through ``torch.compile``.
        attention: what the positions of a prompt see; by default what the model was trained with. ``prefix`` for P = 1.
        graphs: replay forwards by these, which nobody else may use as long as the target is there.
    """
    match law:
        case "next" if model.config.patch == 1:
            seen = attention or model.config.prompt
            return PatchTarget(model, bos_patch, compiled=compiled, attention=seen, graphs=graphs)
        case "product" | "chain":
            return PatchTarget(model, bos_patch, compiled=compiled, graphs=graphs)
        case "next":
            return NextTarget(model, bos_patch, compiled=compiled, graphs=graphs)


class _StreamTarget:
    """What the targets share: checks, the reading of prompts in chunks, the forward over cached streams.

    Attributes:
        max_guess: symbols that the model can guess beyond its law, for :class:`~bytelm.decoding.HeadsDrafter`.
        attention: what the positions of a prompt see.
        asynchronous: whether the device computes while the host goes on.
        graphs: by which forwards after the prompt are replayed, and what follows them; None: they are run.
    """

    unit: int
    max_guess: int

    def __init__(
        self, model: ByteLM, bos_patch: NDArray[Any], *, compiled: bool = False, graphs: Graphs | None = None
    ) -> None:
        assert len(bos_patch) >= model.config.patch or (len(bos_patch) == 0 and model.config.patch == 1)
        self.model, self.bos_patch, self.device = model, bos_patch, model.device
        self.vocab_size, self.patch = model.config.vocab_size, model.config.patch
        self.graphs, self.asynchronous = graphs, self.device.type == "cuda"
        self.fixed_shapes = compiled
        self.attention: PromptAttention = "causal"
        self.cache: KVCache
        self._forward: Forward = compile_once(forward) if compiled else forward

    def new(self) -> "_StreamTarget":
        """A target of the same model and law that holds no rows yet."""
        other = copy.copy(self)  # of which ``start`` replaces what is of a batch
        other.graphs = None
        return other

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
        self.cache = self._new_cache(len(streams), max(capacity, longest))
        picked, rows = None, torch.arange(len(streams), device=self.device)
        prefix = self.attention == "prefix"
        chunk = longest if prefix else PREFILL_CHUNK  # what sees a whole prompt must be read with it
        for begin in range(0, longest, chunk):
            piece = windows_BTP[:, begin : begin + chunk]
            positions = torch.arange(begin, begin + piece.shape[1], device=self.device).expand(len(streams), -1)
            last_seen = torch.maximum(positions, pick[:, None]) if prefix else None
            h_BTD = forward(self.model, piece, self.cache, None, positions, begin + piece.shape[1], last_seen)
            found = h_BTD[rows, (pick - begin).clamp(0, piece.shape[1] - 1)]
            inside = ((pick >= begin) & (pick < begin + piece.shape[1]))[:, None]
            picked = found if picked is None else torch.where(inside, found, picked)
        assert picked is not None
        return picked

    def _new_cache(self, num_rows: int, capacity: int) -> KVCache:
        """An empty cache; with graphs, the one of the run before where it has this size, with room for whole steps."""
        if self.graphs is None:
            return self.model.new_cache(num_rows, capacity)
        context = self.model.config.context // self.patch
        capacity = max(capacity, min(_in_steps(capacity), context))
        cache = self.graphs.kept.pop("cache", None)
        if isinstance(cache, KVCache) and (cache.num_rows, cache.capacity) == (num_rows, capacity):
            cache.clear()
        else:
            del cache  # before there is another
            cache = self.model.new_cache(num_rows, capacity)
        self.graphs.kept["cache"] = cache
        return cache

    def _slots_read(self, num_slots: int) -> int:
        """Slots that a forward looks at. Where shapes are fixed, in steps, so that few numbers of slots occur."""
        in_steps = self.fixed_shapes or self.graphs is not None
        return min(_in_steps(num_slots) if in_steps else num_slots, self.cache.capacity)

    def _run(self, function: Callable[..., _T], *args: Any) -> _T:
        """The function's result, replayed where there are graphs."""
        return function(*args) if self.graphs is None else self.graphs.run(function, *args)


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
        graphs: Graphs | None = None,
    ) -> None:
        super().__init__(model, bos_patch, compiled=compiled, graphs=graphs)
        self.unit, self.attention = model.config.patch, attention
        self.max_guess = 0 if model.next_patch is None else 4 * self.unit
        if model.draft_heads is not None:
            self.max_guess = model.draft_heads.num_heads
        self._last_B: Int[Tensor, " B"]
        self._slots_B: Int[Tensor, " B"]
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
        last = [_last_symbols(stream, self.model.config.num_windows_before_heads + 1) for stream in streams]
        return StatesBlock(
            self.model, self.unit, h_BD[:, None], torch.from_numpy(np.stack(last)).to(self.device)[:, None]
        )

    def advance(self, emitted: Symbols, counts: Counts, draft: _AnyNumber) -> StatesBlock:
        """Commit whole patches, then read the last of them and the drafted ones after it."""
        self._longest = min(self._longest + emitted.shape[1] // self.patch, self.cache.capacity)
        num_slots = self._slots_read(self._longest + draft.shape[1] // self.patch)
        state = self._forward, self.model, self.cache, self._last_B
        h_BTD, windows_BT_, self._last_B = self._run(read_patches, *state, emitted, counts, draft, num_slots)
        return StatesBlock(self.model, self.unit, h_BTD, windows_BT_)

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

    def __init__(
        self, model: ByteLM, bos_patch: NDArray[Any], *, compiled: bool = False, graphs: Graphs | None = None
    ) -> None:
        super().__init__(model, bos_patch, compiled=compiled, graphs=graphs)
        self.unit = 1
        self.max_guess = self.patch - 1
        self._bytes_BL: Int[Tensor, "B L"]
        self._begins_B1: Int[Tensor, "B 1"]  # of the last windows
        self._most_B: Int[Tensor, " B"]
        self._longest = self._reach = 0

    def start(self, prompts: Sequence[NDArray[Any]], num_new: int | Sequence[int], max_draft: int) -> StatesBlock:
        """Read the prompts in all phases; see :class:`bytelm.decoding.protocols.Target`."""
        patch, device = self.patch, self.device
        strings = self._with_bos(prompts, num_new)
        streams = [
            row[s : s + (len(row) - s) // patch * patch].reshape(-1, patch) for row in strings for s in range(patch)
        ]
        lengths = np.array([len(row) for row in strings])
        most = lengths + _by_row(num_new, len(strings))
        self._longest, self._reach = int(lengths.max()), max_draft + patch
        slots = self._slots(int(most.max()))
        self._most_B = torch.from_numpy(most).to(device)
        data = np.zeros((len(strings), slots * patch), np.int64)
        for r, row in enumerate(strings):
            data[r, : len(row)] = row
        self._bytes_BL = self._new_bytes(torch.from_numpy(data).to(device))
        self._begins_B1 = torch.from_numpy(lengths[:, None] - patch).to(device)
        stream, slot = place(self._begins_B1[:, 0], patch)
        h = self._prefill(streams, slots, slot.repeat_interleave(patch))
        rows = torch.arange(len(strings), device=device)
        before, none = self.model.config.num_windows_before_heads, self._bytes_BL[:, :0]
        windows_B1_ = windows_at(self._bytes_BL, self._begins_B1, none, patch, before)
        return StatesBlock(self.model, 1, h[rows * patch + stream][:, None], windows_B1_)

    def advance(self, emitted: Symbols, counts: Counts, draft: _AnyNumber) -> StatesBlock:
        """Commit, then read the last committed byte and the draft."""
        longest = self._bytes_BL.shape[1] - self._reach  # where rows that have finished, and go on, stand still
        self._longest = min(self._longest + emitted.shape[1], longest)
        ahead = num_windows(draft.shape[1] + 1, self.patch)
        num_slots = self._slots_read(-(-(self._longest + ahead) // self.patch))
        state = self._forward, self.model, self.cache, TensorInPlace(self._bytes_BL), self._begins_B1
        given = emitted, counts, draft, longest - self.patch, num_slots
        h_BND, windows_BN_, self._begins_B1 = self._run(read_bytes, *state, *given)
        return StatesBlock(self.model, 1, h_BND, windows_BN_)

    def _slots(self, most: int) -> int:
        """Slots of each stream for so many bytes and what a forward may read or write after them."""
        return -(-(most + self._reach) // self.patch)

    def _new_bytes(self, bytes_BL: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """These bytes; with graphs, where those of the run before were, if they were as many."""
        if self.graphs is None:
            return bytes_BL
        kept = self.graphs.kept.get("bytes")
        if not isinstance(kept, Tensor) or kept.shape != bytes_BL.shape:
            self.graphs.kept["bytes"] = bytes_BL
            return bytes_BL
        return kept.copy_(bytes_BL)

    def select(self, rows: Int[Tensor, " _"]) -> None:
        """Keep these rows, with all their streams."""
        self.cache.select((rows[:, None] * self.patch + torch.arange(self.patch, device=self.device)).flatten())
        self._bytes_BL, self._begins_B1 = self._bytes_BL[rows], self._begins_B1[rows]
        self._most_B = self._most_B[rows]

    def join(self, other: "NextTarget") -> None:
        """Take up the rows of another, with all their streams; see :class:`bytelm.decoding.protocols.Target`."""
        self._begins_B1 = torch.cat((self._begins_B1, other._begins_B1))
        self._most_B, self._reach = torch.cat((self._most_B, other._most_B)), max(self._reach, other._reach)
        self._longest, slots = int(self._begins_B1.max()) + self.patch, self._slots(int(self._most_B.max()))
        width = slots * self.patch
        parts = [part[:, :width] for part in (self._bytes_BL, other._bytes_BL)]
        self._bytes_BL = torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])
        self.cache.join(other.cache, slots)

    def rewind(self, counts: Counts) -> None:
        """Forget the last bytes."""
        self._begins_B1 = self._begins_B1 - counts[:, None]


def _in_steps(num_slots: int) -> int:
    return -(-num_slots // _SLOT_STEP) * _SLOT_STEP


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


def _last_symbols(stream: NDArray[Any], num_windows: int) -> NDArray[np.int64]:
    """Those of a stream's last windows; ABSENT where it has fewer."""
    found = stream[-num_windows:].astype(np.int64).reshape(-1)
    return np.pad(found, (num_windows * stream.shape[1] - len(found), 0), constant_values=ABSENT)

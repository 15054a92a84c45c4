"""What a forward of a target reads: windows, and where in its cache they go. Functions of tensors that may be recorded.

Each gives the same when it is called twice, and asks no device for a value.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bytelm.graphs import TensorInPlace
from bytelm.model.byte_lm import ByteLM
from bytelm.nn.kv_cache import CacheView, KVCache
from bytelm.shapes import Counts, Hidden, Symbols, Windows

_AnyNumber = Int[Tensor, "B _"]
"""Symbols whose number per row has nothing to do with the N of other arguments."""

Forward = Callable[..., Hidden]
""":func:`forward`, or what it was compiled to."""


def forward(
    model: ByteLM,
    windows_BTP: Windows,
    cache: KVCache,
    rows: Int[Tensor, " B"] | None,
    positions: Int[Tensor, "B T"],
    num_slots: int,
    last_seen: Int[Tensor, "B T"] | None = None,
) -> Hidden:
    """States of new windows at these positions; the arguments are those of :class:`bytelm.nn.kv_cache.CacheView`."""
    return model(windows_BTP, CacheView(cache, rows, positions, num_slots, last_seen))


def read_patches(
    forward: Forward,
    model: ByteLM,
    cache: KVCache,
    last_B: Int[Tensor, " B"],
    emitted: Symbols,
    counts: Counts,
    draft: _AnyNumber,
    num_slots: int,
) -> tuple[Hidden, Windows, Int[Tensor, " B"]]:
    """The forward of :meth:`PatchTarget.advance` after ``last_B``; states, what they follow, and the new ``last_B``."""
    patch, device = model.config.patch, draft.device
    last = (counts - patch).clamp(min=0)[:, None] + torch.arange(patch, device=device)
    windows_BTP = torch.cat((emitted.gather(1, last), draft), dim=1).unflatten(1, (-1, patch))
    last_B = last_B + counts // patch
    ahead = torch.arange(windows_BTP.shape[1], device=device)
    positions = (last_B[:, None] + ahead).clamp(max=cache.capacity - 1)
    return forward(model, windows_BTP, cache, None, positions, num_slots), windows_BTP, last_B


def read_bytes(
    forward: Forward,
    model: ByteLM,
    cache: KVCache,
    text: TensorInPlace,
    lengths_B: Int[Tensor, " B"],
    emitted: Symbols,
    counts: Counts,
    draft: _AnyNumber,
    most: int,
    num_slots: int,
) -> tuple[Float[Tensor, "B N D"], Int[Tensor, "B N P"], Int[Tensor, " B"]]:
    """The forward of :meth:`NextTarget.advance` after ``lengths_B`` bytes of ``text``, to which it adds what is
    committed; states, the windows before them, and the new ``lengths_B``, at most ``most``.
    """
    patch, bytes_BL, num_read = model.config.patch, text.tensor, draft.shape[1] + 1
    streams = torch.arange(patch, device=draft.device)
    # Columns past a row's count land where its next symbols will overwrite them.
    columns = lengths_B[:, None] + torch.arange(emitted.shape[1], device=draft.device)
    bytes_BL.scatter_(1, columns, emitted)
    lengths_B = (lengths_B + counts).clamp(max=most)
    first_B1 = lengths_B[:, None] - patch  # where the first window begins
    last_BP = bytes_BL.gather(1, first_B1 + streams)
    filler = last_BP[:, : num_windows(num_read, patch) - num_read]
    windows_BNP = torch.cat((last_BP, draft, filler), dim=1).unfold(1, patch, 1)
    read = _read_all if windows_BNP.shape[1] % patch == 0 else _read_some
    h_BND = read(forward, model, cache, windows_BNP, first_B1, streams, num_slots)
    return h_BND[:, :num_read], windows_BNP[:, :num_read], lengths_B


def _read_some(
    forward: Forward,
    model: ByteLM,
    cache: KVCache,
    windows_BNP: Int[Tensor, "B N P"],
    first_B1: Int[Tensor, "B 1"],
    streams: Int[Tensor, " P"],
    num_slots: int,
) -> Float[Tensor, "B N D"]:
    """Fewer windows than streams: each in a stream of its own, whose slots are gathered."""
    num_rows, num_windows, patch = windows_BNP.shape
    begins_BN = first_B1 + streams[:num_windows]
    rows_B1 = torch.arange(0, num_rows * patch, patch, device=streams.device)[:, None]
    stream_BN, slot_BN = place(begins_BN, patch)
    rows = (rows_B1 + stream_BN).flatten()
    h = forward(model, windows_BNP.flatten(0, 1)[:, None], cache, rows, slot_BN.flatten()[:, None], num_slots)
    return h.view(num_rows, num_windows, -1)


def _read_all(
    forward: Forward,
    model: ByteLM,
    cache: KVCache,
    windows_BNP: Int[Tensor, "B N P"],
    first_B1: Int[Tensor, "B 1"],
    streams: Int[Tensor, " P"],
    num_slots: int,
) -> Float[Tensor, "B N D"]:
    """Whole rounds of the streams: all cache rows in order, read in place, T = N / P windows in each."""
    num_rows, patch = len(windows_BNP), len(streams)
    rounds = torch.arange(windows_BNP.shape[1] // patch, device=streams.device)
    rows_B1 = torch.arange(num_rows, device=streams.device)[:, None]
    ahead_BP = streams - first_B1  # bytes from the first window to one of each stream
    by_stream = windows_BNP.unflatten(1, (-1, patch)).transpose(1, 2)[rows_B1, ahead_BP % patch].flatten(0, 1)
    slots = (rounds - (ahead_BP // patch)[..., None]).flatten(0, 1)
    h = forward(model, by_stream, cache, None, slots, num_slots).unflatten(0, (num_rows, patch))
    return h[rows_B1, (first_B1 + streams) % patch].transpose(1, 2).flatten(1, 2)


def num_windows(num_read: int, patch: int) -> int:
    """More windows than streams are read in all streams at once, and their number is filled up."""
    return num_read if num_read <= patch else -(-num_read // patch) * patch


def place(begins: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Stream and slot of the window that begins at byte ``begins``."""
    return begins % patch, begins // patch

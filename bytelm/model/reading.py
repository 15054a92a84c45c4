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
    patches = counts // patch
    last = (patches - 1).clamp(min=0)[:, None] * patch + torch.arange(patch, device=device)
    windows_BTP = torch.cat((emitted.gather(1, last), draft), dim=1).unflatten(1, (-1, patch))
    last_B = last_B + patches
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
    num_slots: int,
) -> tuple[Float[Tensor, "B N D"], Int[Tensor, "B N P"], Int[Tensor, " B"]]:
    """The forward of :meth:`NextTarget.advance` after ``lengths_B`` bytes of ``text``, which it writes to; states, the
    windows before them, and the new ``lengths_B``.
    """
    patch, bytes_BL, num_read = model.config.patch, text.tensor, draft.shape[1] + 1
    # Columns past a row's count land where its draft, or its next symbols, will overwrite them.
    _write(bytes_BL, lengths_B, emitted)
    lengths_B = lengths_B + counts
    _write(bytes_BL, lengths_B, draft)
    ends_BN = lengths_B[:, None] - 1 + torch.arange(num_windows(num_read, patch), device=draft.device)
    ends_BN = ends_BN.clamp(max=bytes_BL.shape[1] - 1)
    rows_B = torch.arange(len(emitted), device=draft.device)
    offsets = torch.arange(1 - patch, 1, device=draft.device)
    windows_BNP = bytes_BL[rows_B[:, None, None], ends_BN[..., None] + offsets]
    read = _read_all if ends_BN.shape[1] % patch == 0 else _read_some
    h_BND = read(forward, model, cache, windows_BNP, ends_BN, num_slots)
    return h_BND[:, :num_read], windows_BNP[:, :num_read], lengths_B


def _read_some(
    forward: Forward,
    model: ByteLM,
    cache: KVCache,
    windows_BNP: Int[Tensor, "B N P"],
    ends_BN: Int[Tensor, "B N"],
    num_slots: int,
) -> Float[Tensor, "B N D"]:
    """Fewer windows than streams: each in a stream of its own, whose slots are gathered."""
    patch = model.config.patch
    rows_B1 = torch.arange(len(ends_BN), device=ends_BN.device)[:, None]
    stream_BN, slot_BN = place(ends_BN, patch)
    cache_rows = (rows_B1 * patch + stream_BN).flatten()
    h = forward(model, windows_BNP.flatten(0, 1)[:, None], cache, cache_rows, slot_BN.flatten()[:, None], num_slots)
    return h[:, 0].unflatten(0, ends_BN.shape)


def _read_all(
    forward: Forward,
    model: ByteLM,
    cache: KVCache,
    windows_BNP: Int[Tensor, "B N P"],
    ends_BN: Int[Tensor, "B N"],
    num_slots: int,
) -> Float[Tensor, "B N D"]:
    """Whole rounds of the streams: all cache rows in order, read in place, T = N / P windows in each."""
    patch, device = model.config.patch, ends_BN.device
    rows_B1 = torch.arange(len(ends_BN), device=device)[:, None]
    first_B1, _ = place(ends_BN[:, :1], patch)
    of_stream = (torch.arange(patch, device=device) - first_B1) % patch  # (B, P): the window of each stream
    windows = windows_BNP.unflatten(1, (-1, patch))  # (B, T, P windows, P)
    slots = place(ends_BN, patch)[1].unflatten(1, (-1, patch))
    by_stream = windows.transpose(1, 2)[rows_B1, of_stream].flatten(0, 1)
    positions = slots.transpose(1, 2)[rows_B1, of_stream].flatten(0, 1)
    h = forward(model, by_stream, cache, None, positions, num_slots).unflatten(0, (len(ends_BN), patch))
    of_window = (first_B1 + torch.arange(patch, device=device)) % patch
    return h[rows_B1, of_window].transpose(1, 2).flatten(1, 2)


def num_windows(num_read: int, patch: int) -> int:
    """More windows than streams are read in all streams at once, and their number is filled up."""
    return num_read if num_read <= patch else -(-num_read // patch) * patch


def place(ends: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Stream and slot of the window that ends at byte ``ends``."""
    begins = ends - (patch - 1)
    return begins % patch, begins // patch


def _write(bytes_BL: Int[Tensor, "B L"], begins_B: Int[Tensor, " B"], symbols: Symbols) -> None:
    columns = begins_B[:, None] + torch.arange(symbols.shape[1], device=symbols.device)
    bytes_BL.scatter_(1, columns.clamp(max=bytes_BL.shape[1] - 1), symbols)

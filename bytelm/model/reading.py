"""What a forward of a target reads: windows, and where in its cache they go. Functions of tensors that may be recorded.

Each gives the same when it is called twice, and asks no device for a value.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bytelm.graphs import TensorInPlace
from bytelm.model.byte_lm import ByteLM
from bytelm.nn import native
from bytelm.nn.kv_cache import CacheView, KVCache
from bytelm.nn.windows import ABSENT
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
) -> tuple[Hidden, Int[Tensor, "B T _"], Int[Tensor, " B"]]:
    """The forward of :meth:`PatchTarget.advance` after ``last_B``; states, what the heads read beside them, and the new
    ``last_B``.
    """
    patch, device = model.config.patch, draft.device
    last = (counts - patch).clamp(min=0)[:, None] + torch.arange(patch, device=device)
    windows_BTP = torch.cat((emitted.gather(1, last), draft), dim=1).unflatten(1, (-1, patch))
    last_B = last_B + counts // patch
    ahead = torch.arange(windows_BTP.shape[1], device=device)
    positions = (last_B[:, None] + ahead).clamp(max=cache.capacity - 1)
    h_BTD = forward(model, windows_BTP, cache, None, positions, num_slots)
    windows = model.windows_of_heads(windows_BTP, CacheView(cache, None, positions, num_slots))
    return h_BTD, windows, last_B


def read_bytes(
    forward: Forward,
    model: ByteLM,
    cache: KVCache,
    text: TensorInPlace,
    begins_B1: Int[Tensor, "B 1"],
    emitted: Symbols,
    counts: Counts,
    draft: _AnyNumber,
    last: int,
    num_slots: int,
) -> tuple[Float[Tensor, "B N D"], Int[Tensor, "B N _"], Int[Tensor, "B 1"]]:
    """The forward of :meth:`NextTarget.advance` where the last windows of ``text`` begin at ``begins_B1``; it adds what
    is committed to the text.

    Returns:
        States, what the heads read beside them, and where the first of their windows begin, at most at ``last``.
    """
    patch, bytes_BL, device = model.config.patch, text.tensor, draft.device
    # Columns past a row's count land where its next symbols will overwrite them.
    columns = begins_B1 + torch.arange(patch, patch + emitted.shape[1], device=device)
    bytes_BL.scatter_(1, columns, emitted)
    begins_B1 = (begins_B1 + counts[:, None]).clamp(max=last)
    columns_BP = begins_B1 + torch.arange(patch, device=device)
    windows_BN_ = windows_at(bytes_BL, begins_B1, draft, patch, model.config.num_windows_before_heads)
    by_row = _is_read_by_row(model, cache, *windows_BN_.shape[:2])
    read = _read_some if by_row else _read_all
    return read(forward, model, cache, windows_BN_[..., -patch:], columns_BP, num_slots), windows_BN_, begins_B1


def windows_at(
    bytes_BL: Int[Tensor, "B L"], begins_B1: Int[Tensor, "B 1"], draft: _AnyNumber, patch: int, num_before: int
) -> Int[Tensor, "B _ _"]:
    """The window that begins at each of some bytes of a text and those that begin after it, up to the end of a draft,
    all behind the ``num_before`` windows before them; ABSENT where such a one would begin before the text.
    """
    reach = torch.arange(-num_before * patch, patch, device=begins_B1.device)
    text = torch.cat((bytes_BL.gather(1, (begins_B1 + reach).clamp(min=0)), draft), dim=1)
    windows_BN_ = text.unfold(1, len(reach), 1)
    if not num_before:
        return windows_BN_
    begins_BN = begins_B1 + torch.arange(windows_BN_.shape[1], device=begins_B1.device)
    return torch.where(begins_BN[..., None] + reach // patch * patch >= 0, windows_BN_, ABSENT)


def _is_read_by_row(model: ByteLM, cache: KVCache, num_rows: int, num_read: int) -> bool:
    """Whether windows are better read each in its own stream: fewer than there are streams; or as many, where the core
    finds slots in the cache without gathering them, which leaves less to do than to bring windows into order.
    """
    keys, config = cache.keys[0], model.config
    if num_read != config.patch:
        return num_read < config.patch
    return native.takes_rows(num_rows * num_read, config.width, keys.dtype, keys.device)


def _read_some(
    forward: Forward,
    model: ByteLM,
    cache: KVCache,
    windows_BNP: Int[Tensor, "B N P"],
    columns_BP: Int[Tensor, "B P"],
    num_slots: int,
) -> Float[Tensor, "B N D"]:
    """No more windows than streams: each in a stream of its own, whose slots are gathered."""
    num_rows, num_read, patch = windows_BNP.shape
    stream_BN, slot_BN = place(columns_BP[:, :num_read], patch)
    rows_B1 = torch.arange(0, num_rows * patch, patch, device=stream_BN.device)[:, None]
    windows = windows_BNP.reshape(-1, 1, patch)
    h = forward(model, windows, cache, (rows_B1 + stream_BN).view(-1), slot_BN.reshape(-1, 1), num_slots)
    return h.view(num_rows, num_read, -1)


def _read_all(
    forward: Forward,
    model: ByteLM,
    cache: KVCache,
    windows_BNP: Int[Tensor, "B N P"],
    columns_BP: Int[Tensor, "B P"],
    num_slots: int,
) -> Float[Tensor, "B N D"]:
    """Whole rounds of the streams: all cache rows in order, read in place, T = N / P windows in each."""
    num_rows, num_read, patch = windows_BNP.shape
    filled, device = num_windows(num_read, patch), columns_BP.device
    rows_B1 = torch.arange(num_rows, device=device)[:, None]
    ahead_BP = torch.arange(patch, device=device) - columns_BP[:, :1]  # bytes from the first window to each stream
    rounds = torch.arange(filled // patch, device=device)
    windows_BNP = torch.nn.functional.pad(windows_BNP, (0, 0, 0, filled - num_read))
    by_stream = windows_BNP.unflatten(1, (-1, patch)).transpose(1, 2)[rows_B1, ahead_BP % patch].flatten(0, 1)
    slots = (rounds - (ahead_BP // patch)[..., None]).flatten(0, 1)
    h = forward(model, by_stream, cache, None, slots, num_slots)
    h = h.unflatten(0, (num_rows, patch))
    return h[rows_B1, columns_BP % patch].transpose(1, 2).flatten(1, 2)[:, :num_read]


def num_windows(num_read: int, patch: int) -> int:
    """More windows than streams are read in all streams at once, and their number is filled up."""
    return num_read if num_read <= patch else -(-num_read // patch) * patch


def place(begins: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Stream and slot of the window that begins at byte ``begins``."""
    return begins % patch, begins // patch

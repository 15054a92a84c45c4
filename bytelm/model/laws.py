"""Scoring: the negative log-likelihood of every symbol under ``product``, ``chain`` or ``next``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.errors import LawError
from bytelm.model.byte_lm import ByteLM, cross_entropy
from bytelm.model.config import ModelConfig, PromptAttention
from bytelm.model.ends import Law, TokenEmbeddingConfig
from bytelm.nn.kv_cache import CacheView
from bytelm.shapes import Windows


def check_law(config: ModelConfig, law: str | None) -> Law:
    """The law to use: ``law``, or the model's default for None.

    Raises:
        LawError: the model's heads do not define it.
    """
    if law is None:
        return config.laws[0]
    for known in config.laws:
        if law == known:
            return known
    raise LawError(f"law {law!r}: this model has {config.heads.kind} heads, expected one of {', '.join(config.laws)}")


def check_attention(config: ModelConfig, attention: str | None) -> PromptAttention:
    """What the positions of a prompt see: ``attention``, or what the model was trained with for None.

    Raises:
        LawError: neither ``causal`` nor ``prefix``; or ``prefix`` for a model of bytes.
    """
    known: list[PromptAttention] = ["causal"]
    if isinstance(config.merger, TokenEmbeddingConfig):
        known.append("prefix")
    for name in known:
        if name == (config.prompt if attention is None else attention):
            return name
    raise LawError(f"attention {attention!r}: expected {' or '.join(known)} for this model")


_MAX_LOGITS = 1 << 26
"""The most logits that are held at once."""


@dataclass(frozen=True)
class _Segment:
    """Consecutive patches of one phase of one row, read in one forward.

    The first patch begins at byte ``start``; predictions of patches from ``first`` >= 1 (counted in the segment) on are
    kept.
    """

    row: int
    start: int
    num_patches: int
    first: int


def score_symbols(
    model: ByteLM,
    law: Law,
    rows: Sequence[NDArray[Any]],
    starts: Sequence[int],
    max_windows: int = 16_384,
    *,
    attention: PromptAttention = "causal",
) -> list[NDArray[np.float64]]:
    """Nats of each symbol from ``starts[r]`` on of each row, every symbol once.

    A row longer than the context is read in segments that overlap by half, so that a symbol is predicted from at least
    half a context, wherever it stands.

    Args:
        law: one that the model defines.
        rows: symbols, each row beginning with a BOS patch (models of bytes), or with any token.
        starts: first symbol to score, at least P. The patches of ``product`` and ``chain`` begin there.
        max_windows: patch positions per forward, at most (one segment, at least).
        attention: ``prefix``: each of the symbols before ``starts[r]`` sees all of them, those from there on only what
            is before them, so that no symbol is predicted from itself or a later one.
    """
    patch = model.config.patch
    nats = [np.full(len(row), np.nan) for row in rows]
    phases = range(patch) if law == "next" else (None,)
    segments = [
        segment
        for r, (row, start) in enumerate(zip(rows, starts, strict=True))
        for phase in phases
        for segment in _segments(r, len(row), start, start % patch if phase is None else phase, model.config)
    ]
    with torch.inference_mode():
        for batch in _batches(segments, max_windows):
            longest = max(s.num_patches for s in batch) * patch
            symbols_BL = np.zeros((len(batch), longest), np.int64)
            for b, segment in enumerate(batch):
                piece = rows[segment.row][segment.start : segment.start + segment.num_patches * patch]
                symbols_BL[b, : len(piece)] = piece
            prefixes = [starts[s.row] - s.start if attention == "prefix" else 0 for s in batch]
            found = _predict(model, law, symbols_BL, prefixes)
            for b, segment in enumerate(batch):
                _place(nats[segment.row], found[b], segment, patch)
    result = [row_nats[start:] for row_nats, start in zip(nats, starts, strict=True)]
    assert all(np.isfinite(r).all() for r in result)
    return result


def _predict(model: ByteLM, law: Law, symbols_BL: NDArray[np.int64], prefixes: Sequence[int]) -> NDArray[np.float64]:
    """Nats (B, T, N) of every symbol of each patch but the first; of its first symbol alone under ``next``."""
    read = torch.from_numpy(symbols_BL).to(model.device)
    if law != "next":
        return model.patch_nats(read).double().cpu().numpy()
    patches_BTP = read.unflatten(1, (-1, model.config.patch))
    windows, targets = patches_BTP[:, :-1], patches_BTP[:, 1:, :1]
    h_BTD = model(windows, _prefix_view(model, windows, prefixes) if any(p > 1 for p in prefixes) else None)
    step = max(1, _MAX_LOGITS // (len(h_BTD) * model.config.vocab_size))
    given = h_BTD, model.windows_of_heads(windows), targets
    parts = [
        cross_entropy(model.heads.step(h_BD, window, window[..., :0])[:, :, None], target)
        for h_BD, window, target in zip(*(x.split(step, dim=1) for x in given), strict=True)
    ]
    return torch.cat(parts, dim=1).double().cpu().numpy()


def _prefix_view(model: ByteLM, windows_BTP: Windows, prefixes: Sequence[int]) -> CacheView:
    """All positions, of which the first ``prefixes[b]`` of each row see each other."""
    num_rows, num_windows, _ = windows_BTP.shape
    positions = torch.arange(num_windows, device=windows_BTP.device).expand(num_rows, -1)
    last_of_prefix = torch.tensor(prefixes, device=windows_BTP.device)[:, None] - 1
    last_seen = torch.maximum(positions, last_of_prefix.clamp(max=num_windows - 1))
    return CacheView(model.new_cache(num_rows, num_windows), None, positions, num_windows, last_seen)


def _segments(row: int, length: int, start: int, phase: int, config: ModelConfig) -> Iterator[_Segment]:
    """Cut one phase of a row: patches begin at bytes ``phase + P * i``; those that reach to ``start`` are kept."""
    patch, context = config.patch, config.context // config.patch
    num_patches = -(-(length - phase) // patch)
    done = max(1, (start - phase) // patch)
    while done < num_patches:
        begin = max(0, min(done - -(-context // 2), num_patches - (context + 1)))
        end = min(num_patches, begin + context + 1)
        yield _Segment(row, phase + begin * patch, end - begin, done - begin)
        done = end


def _batches(segments: list[_Segment], max_windows: int) -> Iterator[list[_Segment]]:
    """Segments of like length together, so that little is padded."""
    batch: list[_Segment] = []
    for segment in sorted(segments, key=lambda s: s.num_patches):
        if batch and (len(batch) + 1) * segment.num_patches > max_windows:
            yield batch
            batch = []
        batch.append(segment)
    if batch:
        yield batch


def _place(nats: NDArray[np.float64], found: NDArray[np.float64], segment: _Segment, patch: int) -> None:
    """Write the kept predictions of one segment to their bytes."""
    begin, end = segment.start + segment.first * patch, segment.start + segment.num_patches * patch
    for column in range(found.shape[1]):
        places = nats[begin + column : end : patch]
        places[:] = found[segment.first - 1 :, column][: len(places)]

"""Scoring: the negative log-likelihood of every byte under ``product``, ``chain`` or ``next``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer
from numpy.typing import NDArray
from torch import Tensor

from bytelm.errors import LawError
from bytelm.model.byte_lm import ByteLM, cross_entropy
from bytelm.model.config import Law, ModelConfig


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


def score_bytes(
    model: ByteLM, law: Law, rows: Sequence[NDArray[np.uint8]], starts: Sequence[int], max_windows: int = 16_384
) -> list[NDArray[np.float64]]:
    """Nats of each byte from ``starts[r]`` on of each row, every byte once.

    A row longer than the context is read in segments that overlap by half, so that a byte is predicted from at least
    half a context, wherever it stands.

    Args:
        law: one that the model defines.
        rows: byte strings, each beginning with a BOS patch.
        starts: first byte to score, at least P. The patches of ``product`` and ``chain`` begin there.
        max_windows: patch positions per forward, at most (one segment, at least).
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
    device = model.device
    with torch.inference_mode():
        for batch in _batches(segments, max_windows):
            longest = max(s.num_patches for s in batch) * patch
            bytes_BL = np.zeros((len(batch), longest), np.uint8)
            for b, segment in enumerate(batch):
                piece = rows[segment.row][segment.start : segment.start + segment.num_patches * patch]
                bytes_BL[b, : len(piece)] = piece
            found = _predict(model, law, torch.from_numpy(bytes_BL).to(device)).double().cpu().numpy()
            for b, segment in enumerate(batch):
                _place(nats[segment.row], found[b], segment, patch)
    result = [row_nats[start:] for row_nats, start in zip(nats, starts, strict=True)]
    assert all(np.isfinite(r).all() for r in result)
    return result


def _predict(model: ByteLM, law: Law, bytes_BL: Integer[Tensor, "B L"]) -> Float[Tensor, "B T N"]:
    """Nats of every byte of each patch but the first; of its first byte alone under ``next``."""
    if law != "next":
        return model.patch_nats(bytes_BL)
    patches_BTP = bytes_BL.unflatten(1, (-1, model.config.patch)).long()
    windows, targets = patches_BTP[:, :-1], patches_BTP[:, 1:, :1]
    h_BTD = model(windows)
    logits = model.heads.step(h_BTD, windows, windows[..., :0])
    return cross_entropy(logits[:, :, None], targets)


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

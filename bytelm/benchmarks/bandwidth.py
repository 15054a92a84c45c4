"""The roof of decoding: how fast memory is read, and what a forward must read."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bytelm.benchmarks.timing import seconds_per_call
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import ModelConfig
from bytelm.model.ends import Law

LARGE_BUFFER = 2**29
"""Bytes: much more than the caches of a processor hold."""

_ROW = 4_096


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """Speed of reading one buffer again and again.

    Attributes:
        num_bytes: its size. What is not much larger than the caches is read from there.
        bytes_per_second: of the fastest way to read it.
    """

    num_bytes: int
    bytes_per_second: float


def measure_bandwidth(num_bytes: int, device: torch.device, repeats: int = 5) -> Bandwidth:
    """Read a buffer in three ways (sums as float32 and int64, a vector times a matrix); the fastest run counts.

    Args:
        num_bytes: of the buffer; rounded up to whole rows of 16 KiB.
        device: on the CPU, all threads that torch uses read.
        repeats: runs of each way.
    """
    matrix = torch.ones(-(-num_bytes // (4 * _ROW)), _ROW, device=device)
    vector = torch.ones(len(matrix), device=device)
    whole = matrix.view(torch.int64)
    ways: list[Callable[[], object]] = [matrix.sum, whole.sum, lambda: vector @ matrix]
    size = matrix.numel() * matrix.element_size()
    with torch.inference_mode():
        for way in ways:
            way()
        best = min(seconds_per_call(way, device) for _ in range(repeats) for way in ways)
    return Bandwidth(size, size / best)


def weight_bytes(model: ByteLM, law: Law, draft: str = "none", *, with_heads: bool = True) -> int:
    """Bytes of the weight matrices that one forward under a law reads, with the drafting after it.

    Each matrix counts once, whatever the batch and however often the chain of heads comes back to it. Embeddings and
    n-gram tables, of which a few rows are read, and norms do not count. ``auto`` counts as no draft: a lower bound.

    Args:
        model: its law must be one of ``model.config.laws``.
        law: ``next`` reads head 1 alone, unless all of them draft.
        draft: the drafter.
        with_heads: whether the heads count.
    """
    config, first_head = model.config, 0
    parts: list[nn.Module] = [model.merger, model.blocks]
    if with_heads and (law != "next" or draft == "heads" or config.patch == 1):
        parts.append(model.heads)
    elif with_heads:
        first_head = config.width * config.vocab_size * next(model.parameters()).element_size()
    if law != "next" and draft == "heads" and model.next_patch is not None:
        parts.append(model.next_patch)
    if draft == "heads" and model.draft_heads is not None:
        parts.append(model.draft_heads)
    return first_head + sum(_all_matrix_bytes(part) for part in parts)


def slot_bytes(config: ModelConfig, itemsize: int) -> int:
    """Bytes of keys and values of one patch position of one stream, over all blocks."""
    attention = config.attention
    return 2 * config.num_blocks * attention.num_kv_heads * attention.head_width * itemsize


def matrix_bytes(weight: Tensor) -> int:
    """Bytes of a matrix; of one that torchao has quantised, those of its codes."""
    codes: Tensor = getattr(weight, "qdata", weight)
    return codes.numel() * codes.element_size()


def _all_matrix_bytes(part: nn.Module) -> int:
    return sum(matrix_bytes(module.weight) for module in part.modules() if isinstance(module, nn.Linear))

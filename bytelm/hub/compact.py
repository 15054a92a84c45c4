"""Weights of a quarter of float32 on disk: every matrix in int8, each of its rows with a scale in float32; rows of
n-gram tables in four bits, if that is asked for.

Loading gives floats again, those of the rounded weights: the same model on every machine, and another one than that
which was rounded.
"""

from collections.abc import Mapping, Set

import torch
from jaxtyping import Int8, UInt8
from torch import Tensor, nn

from bytelm.errors import CheckpointError
from bytelm.nn.int8_rows import LARGEST, LARGEST_OF_FOUR_BITS, restore_rows, round_rows
from bytelm.nn.ngram import named_rows

_SCALES = ".scales"
_ZERO = 8  # what 0 is in four bits


def pack(weights: Mapping[str, Tensor], four_bit: Set[str] = frozenset()) -> dict[str, Tensor]:
    """Codes under the name of each matrix, and its scales under ``NAME.scales``; what has one axis in float32, and
    whole numbers as they are.

    Args:
        weights: by name.
        four_bit: names of matrices whose codes are of four bits, two to a byte; of an even number of columns.
    """
    packed = {}
    for name, tensor in weights.items():
        if tensor.dim() == 2:
            codes, packed[name + _SCALES] = round_rows(tensor, LARGEST_OF_FOUR_BITS if name in four_bit else LARGEST)
            packed[name] = _pair(codes) if name in four_bit else codes
        else:
            packed[name] = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
    return packed


def four_bit_names(model: nn.Module) -> set[str]:
    """Of which matrices of a model :func:`pack` may be given the names: rows of n-gram tables of an even number of
    numbers.
    """
    return {name for name, table in named_rows(model).items() if table.embedding_dim % 2 == 0}


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in float32 in the place of codes and scales. What is not in int8, or without scales, stays as it is.

    Raises:
        CheckpointError: codes and scales are not of as many rows.
    """
    kinds = torch.int8, torch.uint8
    codes = {name for name, tensor in packed.items() if tensor.dtype in kinds and name + _SCALES in packed}
    scales = {name + _SCALES for name in codes}
    for name in codes:
        rows, found = packed[name].shape[:1], packed[name + _SCALES].shape
        if found != rows:
            raise CheckpointError(f"scales of {name}: found {list(found)}, expected {list(rows)}, one for each row")
    return {
        name: restore_rows(_single(tensor), packed[name + _SCALES]) if name in codes else tensor
        for name, tensor in packed.items()
        if name not in scales
    }


def _pair(codes_RD: Int8[Tensor, "R D"]) -> UInt8[Tensor, "R _"]:
    """Codes of four bits, two to a byte: the first D / 2 of a row in the low halves, the others in the high ones."""
    low, high = (codes_RD + _ZERO).to(torch.uint8).chunk(2, dim=1)
    assert low.shape == high.shape
    return low | high << 4


def _single(codes: Tensor) -> Int8[Tensor, "R D"]:
    """Codes one by one."""
    if codes.dtype == torch.int8:
        return codes
    return torch.cat((codes & 15, codes >> 4), dim=1).to(torch.int8) - _ZERO

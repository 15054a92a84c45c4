"""Weights of a quarter of float32 on disk: every matrix in int8, each of its rows with a scale in float32.

Loading gives floats again, those of the rounded weights: the same model on every machine, and another one than that
which was rounded.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bytelm.errors import CheckpointError
from bytelm.nn.int8_rows import restore_rows, round_rows

_SCALES = ".scales"


def pack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Codes under the name of each matrix, and its scales under ``NAME.scales``; what has one axis in float32."""
    packed = {}
    for name, tensor in weights.items():
        if tensor.dim() == 2:
            packed[name], packed[name + _SCALES] = round_rows(tensor)
        else:
            packed[name] = tensor.detach().float()
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in float32 in the place of codes and scales. What is not in int8, or without scales, stays as it is.

    Raises:
        CheckpointError: codes and scales are not of as many rows.
    """
    codes = {name for name, tensor in packed.items() if tensor.dtype == torch.int8 and name + _SCALES in packed}
    scales = {name + _SCALES for name in codes}
    for name in codes:
        rows, found = packed[name].shape[:1], packed[name + _SCALES].shape
        if found != rows:
            raise CheckpointError(f"scales of {name}: found {list(found)}, expected {list(rows)}, one for each row")
    return {
        name: restore_rows(tensor, packed[name + _SCALES]) if name in codes else tensor
        for name, tensor in packed.items()
        if name not in scales
    }

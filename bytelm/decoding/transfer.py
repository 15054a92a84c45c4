"""Between host and device without waiting for what the device was told before."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    """The numbers on the device. On the CPU they share their memory."""
    tensor = torch.from_numpy(numbers)
    pinned = device.type == "cuda" and tensor.numel() > 0
    return tensor.pin_memory().to(device, non_blocking=True) if pinned else tensor.to(device)


def to_host(tensor: Tensor, *, copied: bool) -> Tensor:
    """A tensor on its way to the CPU: it is there when the device has come so far.

    Args:
        tensor: may be overwritten by what the device is told later.
        copied: whether it is copied from the CPU, too.
    """
    if not tensor.is_cuda and not copied:
        return tensor
    pinned = tensor.is_cuda and tensor.numel() > 0
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned).copy_(tensor, non_blocking=True)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was told, so that a clock may be read."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()

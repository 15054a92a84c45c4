"""Gradients of which some are sparse in their rows: their values, their norm, and their mean over processes."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def gradient_values(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The gradients that there are; of one that is sparse in its rows, the rows that it has, each once.

    They share memory with the gradients: what is multiplied here is multiplied there.
    """
    found = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            found.append(parameter.grad.values())
        elif parameter.grad is not None:
            found.append(parameter.grad)
    return found


def clip_gradient_norm(parameters: Iterable[Tensor], limit: float) -> Float[Tensor, ""]:
    """Scale gradients so that their norm, that of one vector of all of them, is at most ``limit``; gives the norm.

    As :func:`torch.nn.utils.clip_grad_norm_`, which knows no sparse gradients.
    """
    values = gradient_values(parameters)
    norm = nn.utils.get_total_norm(values)
    factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
    for value in values:
        value.mul_(factor.to(value.device))
    return norm


def average_rows(parameters: Iterable[Tensor], num_processes: int) -> None:
    """Put the mean over all processes in the place of gradients that are sparse in their rows.

    Every process must have a gradient of the same parameters. Rows and their numbers are sent as dense tensors, padded
    to the longest, for NCCL knows no sparse ones; the sum is in the order of the processes, and so the same in each.
    """
    for parameter in parameters:
        if parameter.grad is None:
            continue
        grad = parameter.grad.coalesce()
        rows_N, values_ND = grad.indices()[0], grad.values()
        counts = [int(n) for n in _gather(torch.tensor([len(rows_N)], device=rows_N.device), num_processes)]
        missing = max(counts) - len(rows_N)
        all_rows = _gather(F.pad(rows_N, (0, missing)), num_processes)
        all_values = _gather(F.pad(values_ND, (0, 0, 0, missing)), num_processes)
        rows = torch.cat([part[:n] for part, n in zip(all_rows, counts, strict=True)])
        values = torch.cat([part[:n] for part, n in zip(all_values, counts, strict=True)]) / num_processes
        parameter.grad = torch.sparse_coo_tensor(rows[None], values, parameter.shape, check_invariants=True).coalesce()


def _gather(tensor: Tensor, num_processes: int) -> list[Tensor]:
    found = [torch.empty_like(tensor) for _ in range(num_processes)]
    dist.all_gather(found, tensor.contiguous())
    return found

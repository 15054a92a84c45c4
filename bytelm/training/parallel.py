"""What the processes of one run tell each other. Without ``torch.distributed`` there is one process, numbered 0."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bytelm.errors import BytelmError

T = TypeVar("T")


def together() -> bool:
    """Whether this process is in touch with others of its run."""
    return dist.is_available() and dist.is_initialized()


def process_number() -> int:
    """The number of this process among those of the run."""
    return dist.get_rank() if together() else 0


def exchanged(value: T) -> list[T]:
    """The values of all processes, in the order of their numbers; all must call."""
    if not together():
        return [value]
    values: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def in_first_process(action: Callable[[], T]) -> T:
    """What ``action`` returns in process 0, which alone runs it; all must call.

    Raises:
        BytelmError, OSError: ``action`` raised it. All processes do, so that none waits for one that is gone.
    """
    if not together():
        return action()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = action()
        except (BytelmError, OSError) as raised:
            outcome[1] = raised
    own_error = outcome[1]
    dist.broadcast_object_list(outcome, 0)
    result: T = outcome[0]
    if outcome[1] is not None:
        raise own_error or outcome[1]
    return result


def agree_on(error: BytelmError | OSError | None) -> None:
    """Raise the error of the first process that has one, in all processes; all must call."""
    errors = [found for found in exchanged(error) if found is not None]
    if errors:
        raise errors[0] if error is None else error


def in_any_process(*flags: bool, device: torch.device) -> list[bool]:
    """For each flag whether it is up in any process; all must call.

    Args:
        flags: of this process.
        device: where tensors go that processes exchange.
    """
    if not together():
        return list(flags)
    found = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return [value > 0 for value in found.tolist()]


def mean_of_processes(figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means of scalars over all processes, in float32 and without gradients; all must call."""
    if not together():
        return dict(figures)
    means = torch.stack([figure.detach().float() for figure in figures.values()])
    dist.all_reduce(means)
    return dict(zip(figures, means / dist.get_world_size(), strict=True))

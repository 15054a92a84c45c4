"""How the benchmarks measure: cases take turns, and times are compared in pairs of one turn."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from bytelm.errors import ConfigError

_Key = TypeVar("_Key")
_T = TypeVar("_T")


def take_turns(cases: Mapping[_Key, Callable[[], _T]], repeats: int) -> dict[_Key, list[_T]]:
    """What each case gave in each repeat. All run once before any runs again: a machine that drifts is fair to them."""
    found: dict[_Key, list[_T]] = {key: [] for key in cases}
    for _ in range(repeats):
        for key, case in cases.items():
            found[key].append(case())
    return found


def median_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """The median of ``values[i] / base[i]``, of pairs measured in one turn; NaN where a base is 0."""
    assert len(values) == len(base)
    return statistics.median(a / b for a, b in zip(values, base, strict=True)) if all(base) else float("nan")


def seconds_per_call(call: Callable[[], object], device: torch.device, least: float = 0.02) -> float:
    """Seconds of one call, the mean of as many as take about ``least`` seconds together; call it once before."""
    seconds, calls = _time(call, 1, device), 1
    if seconds < least:
        calls = max(1, min(round(least / max(seconds, 1e-7)), 100_000))
        seconds = _time(call, calls, device)
    return seconds / calls


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def num_threads(count: int | None) -> Iterator[int]:
    """Let torch use so many threads of the CPU; None: as many as it does already. Gives their number.

    Raises:
        ConfigError: fewer than one.
    """
    if count is not None and count < 1:
        raise ConfigError(f"threads: found {count}, expected at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _time(call: Callable[[], object], calls: int, device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        call()
    synchronize(device)
    return time.perf_counter() - began

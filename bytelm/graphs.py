"""CUDA graphs: functions of tensors, recorded once for each set of shapes and replayed with one launch.

A forward at batch 1 is some hundred operations, each shorter on the device than its launch on the host. A recording
launches all of them at once. It reads its inputs from buffers of its own, writes its results to the same memory every
time, and has every other address in it for good; so a function is recorded anew for other shapes, other plain arguments
and other addresses of what it uses in place.
"""

import copy
import dataclasses
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

_WARM_UP = 2
"""Calls before a recording, in which torch compiles, tunes and makes the handles that it keeps."""

_RECORDINGS = 64
"""Recordings that are kept; with one more, all of them are dropped."""


class InPlace:
    """What a recorded function reads and writes where it lies, instead of in buffers of the recording."""

    @property
    def place(self) -> Hashable:
        """Shapes and addresses of all tensors: a recording holds for these alone."""
        raise NotImplementedError


class TensorInPlace(InPlace):
    """One such tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def place(self) -> Hashable:
        """Shape and address."""
        return self.tensor.shape, self.tensor.data_ptr()


Record = Callable[[Callable[[], Any]], tuple[Callable[[], object], Any]]
"""Records a call: gives what replays it, and what it returned, which every replay fills anew."""


class _Recording(NamedTuple):
    buffers: list[Tensor]
    replay: Callable[[], object]
    result: Any


class CudaRecorder:
    """Records calls as CUDA graphs on one device. They share a pool of memory, so they must not run at the same time.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, torch.cuda.graph_pool_handle()

    def __call__(self, call: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        """See :data:`Record`. The call is made several times: it must be one that may be repeated."""
        with torch.cuda.device(self._device):
            aside, now = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(now)
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    call()
            now.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile, such as those of a server.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = call()
        return graph.replay, result


class Graphs:
    """Recordings of functions, and memory that stays where it is, for one run after another.

    What :meth:`run` returns is overwritten when the same function runs on the same shapes again; so two runs at a time
    need two of these.

    Args:
        record: how a call is recorded.
    Attributes:
        kept: memory that a run leaves for the next, which finds its addresses in the recordings; by name.
        num_recorded: recordings made so far.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._recordings: dict[Hashable, _Recording] = {}
        self.kept: dict[str, Any] = {}
        self.num_recorded = 0

    def run(self, function: Callable[P, T], *args: P.args, **nothing: P.kwargs) -> T:
        """``function(*args)``, replayed where it was recorded before.

        Tensors in arguments, in tuples, lists, dicts and dataclasses too, are copied to the buffers; what is
        :class:`InPlace` is not. All else must be hashable, and equal for the recording to hold. The function must give
        the same when it is called twice, and must not ask the device for a value.
        """
        assert not nothing
        given: list[Tensor] = []
        key = function, _take_apart(args, given)
        found = self._recordings.get(key)
        if found is None:
            found = self._recordings[key] = self._new(function, args, given)
        else:
            for buffer, tensor in zip(found.buffers, given, strict=True):
                buffer.copy_(tensor)
        found.replay()
        result: T = found.result
        return result

    def _new(self, function: Callable[..., Any], args: tuple[Any, ...], given: list[Tensor]) -> _Recording:
        if len(self._recordings) == _RECORDINGS:
            self._recordings.clear()
        buffers = [tensor.clone(memory_format=torch.contiguous_format) for tensor in given]
        own = _put_together(args, iter(buffers))
        self.num_recorded += 1
        return _Recording(buffers, *self._record(lambda: function(*own)))


class Lender:
    """Graphs for borrowers who each need their own, and give them back by ceasing to exist.

    Args:
        make: new ones, where none is free.
    """

    def __init__(self, make: Callable[[], Graphs]) -> None:
        self._make = make
        self._free: list[Graphs] = []

    def lend(self, borrow: Callable[[Graphs], T]) -> T:
        """What ``borrow`` makes of graphs that nobody else has; they are its as long as it exists."""
        graphs = self._free.pop() if self._free else self._make()
        borrower = borrow(graphs)
        weakref.finalize(borrower, self._free.append, graphs).atexit = False
        return borrower


def _take_apart(value: Any, tensors: list[Tensor]) -> Hashable:
    """Append the tensors in a value; returns all else about it."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.shape, value.dtype, value.device
    if isinstance(value, InPlace):
        return type(value), value.place
    parts = _parts(value)
    if parts is None:
        kept: Hashable = value
        return kept
    return type(value), tuple((name, _take_apart(part, tensors)) for name, part in parts)


def _put_together(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The value with other tensors, in the order of :func:`_take_apart`."""
    if isinstance(value, Tensor):
        return next(tensors)
    parts = None if isinstance(value, InPlace) else _parts(value)
    if parts is None:
        return value
    made = {name: _put_together(part, tensors) for name, part in parts}
    if isinstance(value, dict):
        return made
    if isinstance(value, tuple | list):
        return type(value)(*made.values()) if hasattr(value, "_fields") else type(value)(made.values())
    other = copy.copy(value)
    for name, part in made.items():
        object.__setattr__(other, name, part)  # frozen ones too
    return other


def _parts(value: Any) -> list[tuple[Any, Any]] | None:
    """What a value is made of, by name; None where it is taken as a whole."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return None

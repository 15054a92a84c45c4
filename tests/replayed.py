"""Recordings of functions where there is no CUDA: replays go by the rules of a CUDA graph, one operation at a time."""

import copy

import torch

from bytelm.graphs import Graphs, _put_together, _take_apart
from bytelm.nn.kv_cache import KVCache


def record(call):
    """A recording computes nothing; every replay writes to the memory that it was given in the recording."""
    result = call()
    lie = []
    _take_apart(result, lie)
    for tensor in lie:
        tensor.fill_(-(2**31) if tensor.dtype == torch.int64 else torch.nan)

    def replay():
        again = []
        _take_apart(call(), again)
        for tensor, value in zip(lie, again, strict=True):
            tensor.copy_(value)

    return replay, result


class ReplayedGraphs(Graphs):
    """Graphs with that recorder; a recording has the addresses of a cache in it that it was made with, for good."""

    def __init__(self):
        super().__init__(lambda call: record(lambda: self._own_memory(call())))

    def _new(self, function, args, given):
        return super()._new(function, tuple(map(frozen, args)), given)

    @staticmethod
    def _own_memory(result):
        """What a function hands on of its arguments would be the buffers, which no graph writes to."""
        tensors = []
        _take_apart(result, tensors)
        return _put_together(result, iter([tensor.clone() for tensor in tensors]))


def frozen(value):
    if not isinstance(value, KVCache):
        return value
    own = copy.copy(value)
    own.keys, own.values = list(value.keys), list(value.values)
    return own

"""``torch.compile`` for the steps of decoding: every function once, for all shapes that occur."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

_SHAPES = 64
"""Shapes of batch, draft and cache that a function is compiled for before torch gives up on it."""


@functools.cache
def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """The function through ``torch.compile``. Sizes that change are taken as variable from the second value on."""
    fast: Any = torch.compile(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch._dynamo.config.patch(recompile_limit=_SHAPES):
            result: T = fast(*args, **kwargs)
            return result

    return call

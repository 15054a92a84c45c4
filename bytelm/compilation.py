"""``torch.compile``: for the steps of decoding, every function once, for all shapes that occur; and for training."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

_SHAPES = 64
"""Shapes of batch, draft and cache that a function is compiled for before torch gives up on it."""


def compiled_to_train(function: Callable[P, T]) -> Callable[P, T]:
    """The function through ``torch.compile``, its backward pass too; made anew for every shape."""
    fast: Any = torch.compile(function, dynamic=False)
    return fast


@functools.cache
def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """The function through ``torch.compile``. Sizes that change are taken as variable from the second value on."""
    # A limit for the process: set around every call, it costs as much as three matrix products.
    torch._dynamo.config.recompile_limit = max(_SHAPES, torch._dynamo.config.recompile_limit)
    fast: Any = torch.compile(function, options={"cpp_wrapper": not torch.cuda.is_available()})
    return fast

"""The run-time check of shapes and types, each form of a call checked once.

A check sees the types, dtypes and shapes of what goes in and out, and the text of strings, for literals: a call whose
form has passed would pass again. On toy models jaxtyping's checks cost more than the calls.
"""

import collections
import dataclasses
import functools
import inspect
import threading
import types
import typing
from collections.abc import Callable, Hashable
from typing import Any

import jaxtyping
import numpy as np
import torch

_told = threading.local()
_plain: set[type] = set()
_passed: dict[types.CodeType, dict[Hashable, set[Hashable]]] = collections.defaultdict(dict)


def form(value: Any) -> Hashable:
    """All that a check can see of a value."""
    kind = type(value)
    if kind in _plain:
        return kind
    if isinstance(value, torch.Tensor | np.ndarray):
        return kind, value.dtype, value.shape
    if isinstance(value, tuple):
        return kind, *map(form, value)
    if isinstance(value, list | set | frozenset):
        return kind, frozenset(map(form, value))
    if isinstance(value, dict):
        return kind, frozenset((form(key), form(item)) for key, item in value.items())
    if isinstance(value, str | type):
        return kind, value
    _plain.add(kind)
    return kind


def has_shapes(hint: Any) -> bool:
    """Whether a hint holds one of jaxtyping, or a name that may stand for such a one."""
    if isinstance(hint, str | typing.ForwardRef):
        return True
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    inner = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    return typing.get_origin(hint) is not typing.Literal and any(map(has_shapes, inner))


def once_for_each_form(jaxtyped: Callable[..., Any]) -> Callable[..., Any]:
    """What jaxtyping's import hook puts around functions and classes, made to remember the calls that passed.

    Functions without shapes have ``typechecker`` alone, which is quick.
    """

    def decorator(*, typechecker: Any) -> Callable[[Any], Any]:
        def decorate(found: Any) -> Any:
            if inspect.isclass(found):
                if dataclasses.is_dataclass(found) and "__init__" in vars(found):
                    found.__init__ = decorate(found.__init__)
                return found
            if any(map(has_shapes, found.__annotations__.values())):
                return _remembering(found, jaxtyped(typechecker=typechecker))
            return typechecker(found)

        return decorate

    return decorator


def _remembering(function: Callable[..., Any], check: Callable[[Any], Any]) -> Callable[..., Any]:
    passed = _passed[function.__code__]  # one for all functions that a ``def`` within another makes

    @functools.cache
    def whole() -> Callable[..., Any]:
        return check(function)

    @functools.cache
    def result() -> Callable[..., Any]:
        # To the check it is the function, with the names that annotations see; but it returns what is told.
        names = {**function.__globals__, "_told": _told}
        return check(functools.update_wrapper(types.FunctionType(_as_told.__code__, names), function))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = (*map(form, args), *kwargs, *map(form, kwargs.values()))
        results = passed.get(given)
        if results is None:
            found = whole()(*args, **kwargs)
            passed.setdefault(given, set()).add(form(found))
            return found
        found = function(*args, **kwargs)
        if form(found) not in results:
            _told.result = found
            result()(*args, **kwargs)
            results.add(form(found))
        return found

    return call


def _as_told(*args: Any, **kwargs: Any) -> Any:
    return _told.result

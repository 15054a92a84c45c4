"""Modules whose weights somebody reads without calling them, and whether that still gives what calling them would."""

import operator
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from bytelm.nn import native


class KnownModules:
    """A tree of modules as it was when it was looked at, and the weights of some of them.

    To look at every module anew takes as long as the products of a small model: by name they are found in Python. So
    the dictionaries are kept in which modules keep their parts, weights and hooks, and compared without a loop.

    Args:
        root: of the tree.
        readers: those of its modules whose ``weight`` is read.
    """

    def __init__(self, root: nn.Module, readers: Sequence[nn.Module]) -> None:
        modules = list(root.modules())
        self._holders = [module._modules for module in modules]
        self._held = [dict(holder) for holder in self._holders]
        self._parts = [part for held in self._held for part in held.values()]
        self._types = list(map(type, self._parts))
        self._hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self._attributes = [vars(module) for module in modules]
        self._readers = [module._parameters for module in readers]
        self._parameters = self._parameters_now()
        weights = [parameters.get("weight") for parameters in self._readers]
        self._weights = [weight for weight in weights if weight is not None]
        self._addresses: tuple[int, ...] = ()
        self._dtype: torch.dtype | None = None

    def is_as_it_was(self) -> bool:
        """Whether each part and each parameter of a reader is where it was, and each part of the class that it was."""
        if self._holders != self._held or list(map(type, self._parts)) != self._types:
            return False
        now = self._parameters_now()
        return len(now) == len(self._parameters) and all(map(operator.is_, now, self._parameters))

    def addresses(self, dtype: torch.dtype) -> tuple[int, ...] | None:
        """Where the weights are; None where the core cannot read one of this type, or a module's call is waited for."""
        if len(self._weights) < len(self._readers) or any(self._hooks):
            return None
        if any(map(operator.contains, self._attributes, repeat("forward"))):
            return None
        addresses = tuple(map(Tensor.data_ptr, self._weights))
        if addresses != self._addresses or dtype != self._dtype:
            if not all(native.fits(weight, dtype) for weight in self._weights):
                return None
            self._addresses, self._dtype = addresses, dtype
        return addresses

    def _parameters_now(self) -> list[Tensor | None]:
        return list(chain.from_iterable(map(dict.values, self._readers)))


class Knowledge:
    """What is known of some roots, as long as they exist; found anew where a part was replaced.

    Args:
        find: the modules of a root whose weights are read; None where it is not of the kind that can be.
    """

    def __init__(self, find: Callable[[nn.Module], Sequence[nn.Module] | None]) -> None:
        self._find = find
        self._known: WeakKeyDictionary[nn.Module, KnownModules | None] = WeakKeyDictionary()

    def addresses(self, root: nn.Module, dtype: torch.dtype) -> tuple[int, ...] | None:
        """:meth:`KnownModules.addresses` of the root's modules; None, too, where there are none."""
        known = self._known.get(root)
        if known is None or not known.is_as_it_was():
            readers = self._find(root)
            if readers is None:
                return None
            known = self._known[root] = KnownModules(root, readers)
        return known.addresses(dtype)

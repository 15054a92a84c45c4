"""Modules whose weights somebody reads without calling them, and whether that still gives what calling them would."""

import operator
from collections.abc import Callable, Sequence
from itertools import repeat
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
        links = [(module._modules, name, part) for module in modules for name, part in module._modules.items()]
        self._holders = [holder for holder, _, _ in links]
        self._names = [name for _, name, _ in links]
        self._parts = [part for _, _, part in links]
        self._types = [type(part) for part in self._parts]
        self._hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self._attributes = [vars(module) for module in modules]
        self._parameters = [module._parameters for module in readers]
        self._weights: Sequence[Tensor | None] = []
        self._addresses: tuple[int, ...] = ()
        self._dtype: torch.dtype | None = None

    def is_as_it_was(self) -> bool:
        """Whether each part is where it was and of the class that it was, and no bias has come to a weight."""
        biases = map(dict.get, self._parameters, repeat("bias"))
        parts = map(dict.get, self._holders, self._names)
        if not all(map(operator.is_, parts, self._parts)):
            return False
        return all(map(operator.is_, map(type, self._parts), self._types)) and all(
            map(operator.is_, biases, repeat(None))
        )

    def addresses(self, dtype: torch.dtype) -> tuple[int, ...] | None:
        """Where the weights are; None where the core cannot read one of this type, or a module's call is waited for."""
        if any(self._hooks) or any(map(operator.contains, self._attributes, repeat("forward"))):
            return None
        weights = [parameters.get("weight") for parameters in self._parameters]
        addresses = tuple([0 if weight is None else weight.data_ptr() for weight in weights])
        same = len(weights) == len(self._weights) and all(map(operator.is_, weights, self._weights))
        if not (same and addresses == self._addresses and dtype == self._dtype):
            if not all(weight is not None and native.fits(weight, dtype) for weight in weights):
                return None
            self._weights, self._addresses, self._dtype = weights, addresses, dtype
        return addresses


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

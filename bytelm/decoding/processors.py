"""Processors."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

State = Any


class Processor(Protocol):
    """Stub until merged."""

    def start(self, prompts: Sequence[NDArray[Any]], max_new: int, vocab: int, device: torch.device) -> State: ...
    def advance(self, state: State, symbols: Int[Tensor, "*B"]) -> State: ...
    def apply(self, state: State, logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]: ...


def map_state(fn: Callable[..., Any], state: State, *others: State) -> State:
    return pytree.tree_map(fn, state, *others)

"""The native core of linear layers and attention in bfloat16, where it was built, and as far as torch is slower."""

import importlib
from collections.abc import Callable
from types import ModuleType

import torch

from bytelm.nn.widened import has_unit

STEP = 16
"""Widths that the core reads are multiples of this."""

LEAST = 6
"""Outputs that a matrix needs."""


FEW_ROWS = 8
"""Rows up to which the core is faster than torch on processors that multiply bfloat16; on others it always is."""


def _load() -> ModuleType | None:
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        return None
    try:
        return importlib.import_module("._rows", __package__)
    except ImportError:
        return None


core = _load()


def is_for_core(rows: int, *tensors: torch.Tensor) -> bool:
    """Whether the core reads such tensors here: all in bfloat16 on the CPU, and no gradient asked for.

    Args:
        rows: of a product with a matrix; queries of a sequence.
    """
    if core is None or torch.is_grad_enabled() or (has_unit and rows > FEW_ROWS):
        return False
    return all(tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu" for tensor in tensors)


def takes(x: torch.Tensor) -> bool:
    """Whether the core is for these vectors. Not within ``torch.compile``: it fuses what lies between products itself.

    Of bfloat16 as :func:`is_for_core` has it; up to :data:`FEW_ROWS` of float32, on the CPU, where no gradient is asked
    for.
    """
    if core is None or torch.compiler.is_compiling() or torch.is_grad_enabled() or type(x) is not torch.Tensor:
        return False
    if torch._C._len_torch_dispatch_stack():  # somebody counts or follows operations, which the core's are not
        return False
    rows = x.numel() // x.shape[-1]
    if x.dtype == torch.float32:
        return 0 < rows <= FEW_ROWS and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return rows > 0 and is_for_core(rows, x)


def fits(weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether the core reads a weight as it lies: a vector, or a matrix stored by rows, of widths that it knows."""
    return type(weight) is torch.nn.Parameter and weight.dtype == dtype and weight.is_contiguous() and has_width(weight)


def has_width(weight: torch.Tensor) -> bool:
    """Whether the core knows the widths of a weight."""
    return weight.dim() == 1 or (weight.shape[0] >= LEAST and weight.shape[1] % STEP == 0)


def register(name: str, schema: str, run: Callable[..., torch.Tensor], shape: Callable[..., torch.Tensor]) -> None:
    """Make ``run`` the operation ``torch.ops.bytelm.<name>``, which ``torch.compile`` calls as it is.

    Nothing happens where there is no core, so that a second copy of this code in the same process can be imported.

    Args:
        name: of the operation.
        schema: in the language of :func:`torch.library.define`.
        run: computes with the core, on the CPU.
        shape: an empty tensor like the result.
    """
    if core is None:
        return
    torch.library.define(f"bytelm::{name}", schema)
    torch.library.impl(f"bytelm::{name}", "cpu", run)
    torch.library.register_fake(f"bytelm::{name}", shape)

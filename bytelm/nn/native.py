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

NARROW, MANY_ROWS = 1024, 32
"""Width up to which the time between operations is worth more than torch's products, and for how many rows."""


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
    return all(map(_is_bfloat16, tensors))


def _is_bfloat16(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.bfloat16 and tensor.is_cpu


def is_watched() -> bool:
    """Whether operations are to be seen: by ``torch.compile``, or by somebody who counts or follows them."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def takes(x: torch.Tensor) -> bool:
    """Whether the core is for what comes between products of these vectors, too: blocks, heads, norms.

    For bfloat16 and float32 on the CPU, where no gradient is asked for: up to :data:`FEW_ROWS`, of :data:`NARROW`
    vectors up to :data:`MANY_ROWS`; any number of bfloat16 on processors that do not multiply it. Not where
    operations are :func:`watched <is_watched>`.
    """
    if core is None or type(x) is not torch.Tensor:
        return False
    return takes_rows(x.numel() // x.shape[-1], x.shape[-1], x.dtype, x.device)


def takes_rows(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether :func:`takes` takes so many vectors of a width."""
    if core is None or torch.is_grad_enabled() or is_watched() or device.type != "cpu":
        return False
    most = MANY_ROWS if width <= NARROW else FEW_ROWS
    if dtype == torch.bfloat16:
        return rows > 0 and (rows <= most or not has_unit)
    return dtype == torch.float32 and 0 < rows <= most and not torch.is_autocast_enabled("cpu")


def fits(weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether the core reads a weight as it lies: a vector, or a matrix stored by rows, of widths that it knows."""
    if type(weight) is not torch.nn.Parameter or weight.dtype != dtype or not weight.is_cpu:
        return False
    return weight.is_contiguous() and has_width(weight)


def has_width(weight: torch.Tensor) -> bool:
    """Whether the core knows the widths of a weight."""
    return weight.dim() == 1 or (weight.shape[0] >= LEAST and weight.shape[1] % STEP == 0)


def register(
    name: str, schema: str, run: Callable[..., torch.Tensor], shape: Callable[..., torch.Tensor]
) -> Callable[..., torch.Tensor]:
    """Make ``run`` the operation ``torch.ops.bytelm.<name>``, which ``torch.compile`` calls as it is.

    Returns what calls it on tensors: directly where operations are not :func:`watched <is_watched>`, for to call one
    takes as long as a small product. Where there is no core no operation is made, so that a second copy of this code
    in the same process can be imported.

    Args:
        name: of the operation.
        schema: in the language of :func:`torch.library.define`.
        run: computes with the core, on the CPU.
        shape: an empty tensor like the result.
    """
    if core is not None:
        torch.library.define(f"bytelm::{name}", schema)
        torch.library.impl(f"bytelm::{name}", "cpu", run)
        torch.library.register_fake(f"bytelm::{name}", shape)

    def call(x: torch.Tensor, *others: object) -> torch.Tensor:
        seen = type(x) is not torch.Tensor or is_watched()
        found: torch.Tensor = (getattr(torch.ops.bytelm, name) if seen else run)(x, *others)
        return found

    return call

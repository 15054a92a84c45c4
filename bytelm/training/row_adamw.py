"""AdamW for large tables, of which a step reads a few rows."""

import importlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bytelm.errors import ConfigError


def _load() -> ModuleType | None:
    try:
        return importlib.import_module("bytelm.training._row_adamw")
    except ImportError:
        return None


core = _load()
"""One pass over the rows in C, where it was built."""


class RowAdamW(Optimizer):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2) row by row: a row that was not read rests.

    Each row of a table is a parameter of its own, whose steps are those in which a batch read it: only then its moments
    decay, its weights decay, and its count of steps goes on, of which the corrections of the moments are made. So a row
    is where torch's AdamW would have put it, had it seen the gradients of this row alone, one after the other.

    That is not AdamW over the whole table, in which a row moves on when it is not read: there its mean goes on to push
    it, by ``(1 - beta1) / sqrt(1 - beta2) / (1 - beta1 / sqrt(beta2))`` times the rate for one lone gradient, 32 with
    0.9 and 0.999, over the steps after it; here by at most the rate, at once. ``torch.optim.SparseAdam`` lets rows
    rest, too, but corrects their moments by the steps of the whole run. The cost of a step is that of the rows read.

    Args:
        params: tables [rows, D] whose gradients are sparse in their rows, or groups of them.
        lr: learning rate.
        betas: decay of the mean of gradients, and of squared gradients.
        eps: added to the denominator.
        weight_decay: a share of the rate.
    Raises:
        ConfigError: a table is sharded.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        if any(hasattr(p, "full_tensor") for group in self.param_groups for p in group["params"]):
            raise ConfigError(
                "model.optimizer.tables: found 'read_rows' with tables that are sharded, expected 'all_rows'"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the rows that have a gradient, after one call of ``closure``, whose result is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, group)
        return loss

    def _update(self, table: Tensor, group: dict[str, Any]) -> None:
        assert table.grad is not None
        assert table.grad.is_sparse
        grad = table.grad.coalesce()
        rows_N, grad_ND = grad.indices()[0], grad.values()
        state = self.state[table]
        if not state:
            # The name "step" keeps torch from giving the counts the type of the weights when it loads them.
            state["step"] = torch.zeros(len(table), dtype=torch.float32, device=table.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        if core is not None and _is_for_core(table, grad_ND):
            _update_in_core(table, rows_N, grad_ND, state, group)
        else:
            _update(table, rows_N, grad_ND, state, group)


def _is_for_core(*tensors: Tensor) -> bool:
    return all(t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in tensors)


def _update_in_core(
    table: Tensor, rows_N: Tensor, grad_ND: Tensor, state: dict[str, Tensor], group: dict[str, Any]
) -> None:
    assert core is not None
    rows_N = rows_N.contiguous()
    tensors = (table, state["exp_avg"], state["exp_avg_sq"], state["step"], rows_N, grad_ND)
    rule = (group["lr"], *group["betas"], group["eps"], group["weight_decay"])
    core.update(*(tensor.data_ptr() for tensor in tensors), *grad_ND.shape, *map(float, rule), torch.get_num_threads())


def _update(table: Tensor, rows_N: Tensor, grad_ND: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    step_N = state["step"][rows_N] + 1
    mean_ND = state["exp_avg"][rows_N].lerp_(grad_ND, 1 - beta1)
    square_ND = state["exp_avg_sq"][rows_N].mul_(beta2).addcmul_(grad_ND, grad_ND, value=1 - beta2)
    for name, value in (("step", step_N), ("exp_avg", mean_ND), ("exp_avg_sq", square_ND)):
        state[name][rows_N] = value
    rate_N1, root_N1 = _corrections(step_N, group["lr"], beta1, beta2, table.dtype)
    denominator_ND = square_ND.sqrt_().div_(root_N1).add_(group["eps"])
    row_ND = table[rows_N].mul_(1 - group["lr"] * group["weight_decay"])
    table[rows_N] = row_ND.addcdiv_(mean_ND.mul_(rate_N1), denominator_ND, value=-1)


def _corrections(step_N: Tensor, lr: float, beta1: float, beta2: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``lr / (1 - beta1^step)`` and ``sqrt(1 - beta2^step)`` as columns; in double, for 1 - beta2 loses digits."""
    steps = step_N.double()[:, None]
    rate_N1, root_N1 = lr / (1 - beta1**steps), (1 - beta2**steps).sqrt()
    return rate_N1.to(dtype), root_N1.to(dtype)

"""Muon for the hidden matrices. Needs a torch that has Muon."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Muon

from bytelm.heads import ChainedHeads, DraftHeads, IndependentHeads, LMHead
from bytelm.nn.attention import Attention
from bytelm.nn.fused import FusedLinear


def hidden_matrices(model: nn.Module) -> dict[Tensor, tuple[int, ...]]:
    """Weights of all linear layers but the unembeddings, with the rows of each matrix that is stacked in them.

    Queries, keys and values are three matrices, gate and up are two, and each draft head is one.
    """
    rows: dict[Tensor, tuple[int, ...]] = {}
    for module in model.modules():
        if isinstance(module, nn.Linear):
            rows[module.weight] = module.parts if isinstance(module, FusedLinear) else (module.out_features,)
    for module in model.modules():
        match module:
            case Attention(head_width=width):
                heads = (module.num_heads, module.num_kv_heads, module.num_kv_heads)
                rows[module.query_key_value.weight] = tuple(n * width for n in heads)
            case DraftHeads(residual=residual):
                rows[residual.weight] = (residual.in_features,) * module.num_heads
            case IndependentHeads() | LMHead():
                rows.pop(module.unembedding.weight, None)
            case ChainedHeads():
                for unembedding in module.unembeddings.parameters():
                    rows.pop(unembedding, None)
    return rows


class StackedMuon(Muon):
    """torch's Muon on parameters in which matrices are stacked: each matrix is orthogonalised on its own.

    Args:
        groups: of parameters.
        rows: of each matrix in each parameter.
        options: of ``torch.optim.Muon``.
    """

    def __init__(self, groups: list[dict[str, Any]], rows: Mapping[Tensor, Sequence[int]], **options: Any) -> None:
        super().__init__(groups, **options)
        self.rows = rows

    def _init_group(
        self,
        group: MutableMapping[str, Any],
        params_with_grad: list[Tensor],
        grads: list[Tensor],
        muon_momentum_bufs: list[Tensor],
    ) -> bool:
        """Give the step a view of each matrix, of its gradient and of its momentum, which is kept as one tensor."""
        stacked: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        has_complex = super()._init_group(group, *stacked)
        for parameter, grad, momentum in zip(*stacked, strict=True):
            rows = list(self.rows[parameter])
            params_with_grad.extend(parameter.split(rows))
            grads.extend(grad.split(rows))
            muon_momentum_bufs.extend(momentum.split(rows))
        return has_complex


def split_for_muon(
    model: nn.Module, groups: Sequence[Mapping[str, Any]], *, lr: float, momentum: float
) -> tuple[Muon, list[dict[str, Any]]]:
    """Muon for the hidden matrices among the parameters of ``groups``, and the groups of the others.

    An update is scaled to the root mean square that AdamW's has, so that both share rate and decay (Liu et al. 2025,
    arXiv:2502.16982, section 2.2).

    Args:
        model: whose parameters they are.
        groups: ``params`` and ``weight_decay``.
        lr: learning rate.
        momentum: of Muon.
    """
    rows = hidden_matrices(model)
    split: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in groups:
        for chosen, hidden in zip(split, (True, False), strict=True):
            params = [p for p in group["params"] if (p in rows) == hidden]
            if params:
                chosen.append({**group, "params": params})
    return StackedMuon(split[0], rows, lr=lr, momentum=momentum, adjust_lr_fn="match_rms_adamw"), split[1]

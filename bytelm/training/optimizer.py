"""AdamW, or Muon with AdamW, and its schedule."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bytelm.config import Config
from bytelm.errors import ConfigError
from bytelm.nn.ngram import named_rows
from bytelm.training.combined_optimizer import CombinedOptimizer
from bytelm.training.row_adamw import RowAdamW


@dataclass(frozen=True, kw_only=True)
class DecayGroup(Config):
    """A weight decay for some parameters.

    Attributes:
        names: of the parameters in the model, as a pattern of the shell: ``blocks.*.attention.*``.
        weight_decay: of them.
    """

    names: str
    weight_decay: float

    def validate(self) -> None:
        """Check the range."""
        self.require(self.weight_decay >= 0, "weight_decay", "a number >= 0")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with linear warm-up and a decay.

    The decay is half a cosine over all steps after the warm-up, or, with ``cooldown_steps``, a line over the last ones.
    The rate then is the same up to there (Hägele et al. 2024, arXiv:2405.18392), so that how long a run is can be
    decided while it runs: ``bytelm fit --resume RUN --trainer.max_steps N --model.optimizer.cooldown_steps C``.

    The defaults are the recipe of the reference model.

    Attributes:
        algorithm: ``adamw``; or ``muon`` (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) for the
            hidden matrices and AdamW for embeddings, tables, norms and unembeddings, at the same rate.
        lr: learning rate at the end of warm-up.
        min_lr: learning rate at the last step.
        warmup_steps: steps from 0 to ``lr``.
        cooldown_steps: last steps, over which the rate falls in a line; by default none, and a cosine over all.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of squared gradients.
        eps: added to the denominator.
        weight_decay: on matrices of linear layers; embeddings, tables and norms are not decayed.
        decay_groups: parameters with another weight decay; the first pattern that a name matches counts.
        momentum: of Muon.
        tables: what a step changes of n-gram tables. ``all_rows``: all rows, as of any other parameter. ``read_rows``:
            the rows that its batches read, each by the AdamW of a parameter that has seen no other steps
            (:class:`~bytelm.training.row_adamw.RowAdamW`): another rule, at a cost that does not grow with the tables.
            Whole tables in every process, not sharded.
        table_lr_scale: rate of the rows of n-gram tables, as a multiple of that of all else, throughout the schedule:
            with ``read_rows`` a row moves in few of the steps, and learns slowly at the common rate.
    """

    algorithm: Literal["adamw", "muon"] = "adamw"
    lr: float = 5e-4
    min_lr: float = 1e-5
    warmup_steps: int = 2_000
    cooldown_steps: int | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    decay_groups: tuple[DecayGroup, ...] = ()
    momentum: float = 0.95
    tables: Literal["all_rows", "read_rows"] = "all_rows"
    table_lr_scale: float = 1.0

    def validate(self) -> None:
        """Check the ranges."""
        self.require(self.lr > 0, "lr", "a number > 0")
        self.require(0 <= self.min_lr <= self.lr, "min_lr", f"a number from 0 to lr = {self.lr}")
        self.require(self.warmup_steps >= 0, "warmup_steps", "a number >= 0")
        self.require(self.cooldown_steps is None or self.cooldown_steps > 0, "cooldown_steps", "a number > 0")
        self.require(0 <= self.beta1 < 1, "beta1", "a number in [0, 1)")
        self.require(0 <= self.beta2 < 1, "beta2", "a number in [0, 1)")
        self.require(self.eps > 0, "eps", "a number > 0")
        self.require(self.weight_decay >= 0, "weight_decay", "a number >= 0")
        self.require(0 <= self.momentum < 1, "momentum", "a number in [0, 1)")
        self.require(0 < self.table_lr_scale < math.inf, "table_lr_scale", "a number > 0")
        if self.algorithm == "muon" and not hasattr(torch.optim, "Muon"):
            raise ConfigError(f"algorithm: found 'muon' with torch {torch.__version__}, expected a torch that has Muon")

    def factor(self, step: int, num_steps: int) -> float:
        """Learning rate of step ``step`` (0, 1, …) of ``num_steps``, as a share of ``lr``."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        low = self.min_lr / self.lr
        if self.cooldown_steps is not None:
            left = min(1.0, max(0, num_steps - 1 - step) / self.cooldown_steps)
            return low + (1 - low) * left
        progress = min(1.0, (step - self.warmup_steps) / max(1, num_steps - 1 - self.warmup_steps))
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))

    def build(self, model: nn.Module, num_steps: int) -> tuple[Optimizer, LambdaLR]:
        """Optimiser and per-step schedule for the parameters of ``model``.

        Raises:
            ConfigError: a pattern of ``decay_groups`` decides for no parameter.
        """
        optimizer = self._optimizer(model)
        return optimizer, LambdaLR(optimizer, lambda step: self.factor(step, num_steps))

    def row_tables(self, model: nn.Module) -> dict[str, nn.Embedding]:
        """The tables whose gradients have the rows alone that were read, by the names of their weights."""
        return named_rows(model) if self.tables == "read_rows" else {}

    def _optimizer(self, model: nn.Module) -> Optimizer:
        groups, inner = self._groups(model), list[Optimizer]()
        options: dict[str, Any] = {"lr": self.lr, "betas": (self.beta1, self.beta2), "eps": self.eps}
        by_row: list[dict[str, Any]] = []
        if self.tables == "read_rows" or self.table_lr_scale != 1:  # else they stay where all others are
            of_tables, groups = _split(groups, {table.weight for table in named_rows(model).values()})
            of_tables = [{**group, "lr": self.lr * self.table_lr_scale} for group in of_tables]
            by_row, groups = (of_tables, groups) if self.tables == "read_rows" else ([], groups + of_tables)
        for table in self.row_tables(model).values():
            table.sparse = True
        if self.algorithm == "muon":
            from bytelm.training.muon import split_for_muon  # an older torch cannot import it

            muon, groups = split_for_muon(model, groups, lr=self.lr, momentum=self.momentum)
            inner.append(muon)
        inner.append(_adamw(groups, **options))
        if by_row:
            inner.append(RowAdamW(by_row, **options))
        return inner[0] if len(inner) == 1 else CombinedOptimizer(inner)

    def _groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameters with their decay: matrices of linear layers, all others, then ``decay_groups``."""
        matrices = {m.weight for m in model.modules() if isinstance(m, nn.Linear)}
        decays = [self.weight_decay, 0.0, *(group.weight_decay for group in self.decay_groups)]
        groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in decays]
        for name, parameter in model.named_parameters():
            matching = (i for i, group in enumerate(self.decay_groups, 2) if fnmatchcase(name, group.names))
            groups[next(matching, 0 if parameter in matrices else 1)]["params"].append(parameter)
        for i, group in enumerate(self.decay_groups):
            if not groups[i + 2]["params"]:
                raise ConfigError(
                    f"model.optimizer.decay_groups[{i}].names: found {group.names!r}, expected a pattern of the name of"
                    " a parameter, such as 'blocks.*.attention.*', that no pattern before it matches"
                )
        return groups

    def configure(self, model: nn.Module, num_steps: float) -> dict[str, Any]:
        """What a LightningModule's ``configure_optimizers`` returns; the schedule has a rate for each step.

        Raises:
            ConfigError: ``num_steps`` is infinite.
        """
        if not math.isfinite(num_steps):
            raise ConfigError("trainer.max_steps: found no end of training, expected max_steps or max_epochs")
        optimizer, schedule = self.build(model, int(num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _split(groups: Sequence[dict[str, Any]], chosen: Set[Tensor]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The groups of the chosen parameters, without empty ones, and those of the others."""
    if not chosen:
        return [], list(groups)
    inside = [{**group, "params": [p for p in group["params"] if p in chosen]} for group in groups]
    outside = [{**group, "params": [p for p in group["params"] if p not in chosen]} for group in groups]
    return [group for group in inside if group["params"]], outside


def _adamw(groups: Sequence[dict[str, Any]], **options: Any) -> AdamW:
    """AdamW that updates a tensor in one pass over memory (``fused``), where gradients are unscaled before the step."""
    optimizer = AdamW(groups, fused=True, **options)
    # Unscaling inside of the step, which a fused one offers, would come after the norm is looked at and clipped.
    optimizer._step_supports_amp_scaling = False
    return optimizer

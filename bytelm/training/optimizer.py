"""AdamW and its schedule."""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from bytelm.config import Config
from bytelm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with linear warm-up and cosine decay.

    The defaults are the recipe of the reference model.

    Attributes:
        lr: learning rate at the end of warm-up.
        min_lr: learning rate at the last step.
        warmup_steps: steps from 0 to ``lr``.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of squared gradients.
        eps: added to the denominator.
        weight_decay: on matrices of linear layers; embeddings, tables and norms are not decayed.
    """

    lr: float = 5e-4
    min_lr: float = 1e-5
    warmup_steps: int = 2_000
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def validate(self) -> None:
        """Check the ranges."""
        self.require(self.lr > 0, "lr", "a number > 0")
        self.require(0 <= self.min_lr <= self.lr, "min_lr", f"a number from 0 to lr = {self.lr}")
        self.require(self.warmup_steps >= 0, "warmup_steps", "a number >= 0")
        self.require(0 <= self.beta1 < 1, "beta1", "a number in [0, 1)")
        self.require(0 <= self.beta2 < 1, "beta2", "a number in [0, 1)")
        self.require(self.eps > 0, "eps", "a number > 0")
        self.require(self.weight_decay >= 0, "weight_decay", "a number >= 0")

    def factor(self, step: int, num_steps: int) -> float:
        """Learning rate of step ``step`` (0, 1, …) of ``num_steps``, as a share of ``lr``."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        progress = min(1.0, (step - self.warmup_steps) / max(1, num_steps - 1 - self.warmup_steps))
        low = self.min_lr / self.lr
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))

    def build(self, model: nn.Module, num_steps: int) -> tuple[AdamW, LambdaLR]:
        """Optimiser and per-step schedule for the parameters of ``model``."""
        decayed = {m.weight for m in model.modules() if isinstance(m, nn.Linear)}
        groups = [
            {"params": [p for p in model.parameters() if p in decayed], "weight_decay": self.weight_decay},
            {"params": [p for p in model.parameters() if p not in decayed], "weight_decay": 0.0},
        ]
        optimizer = AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps)
        return optimizer, LambdaLR(optimizer, lambda step: self.factor(step, num_steps))

    def configure(self, model: nn.Module, num_steps: float) -> dict[str, Any]:
        """What a LightningModule's ``configure_optimizers`` returns; the schedule has a rate for each step.

        Raises:
            ConfigError: ``num_steps`` is infinite.
        """
        if not math.isfinite(num_steps):
            raise ConfigError("trainer.max_steps: found no end of training, expected max_steps or max_epochs")
        optimizer, schedule = self.build(model, int(num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

"""A moving average of the weights, which takes their place where a model is measured, sampled from or written."""

import contextlib
from collections.abc import Iterator
from typing import Any

import lightning as L
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bytelm.errors import ConfigError
from bytelm.training.module import ByteLMModule
from bytelm.training.sharding import ShardedStrategy

_KEY = "bytelm_averaging"
_PREFIX = "model."


class AverageWeights(L.Callback):
    """Keeps ``average = decay * average + (1 - decay) * weights`` over the optimiser's steps.

    It begins with the weights after the first step it sees (cf. Kingma and Ba 2015, arXiv:1412.6980, section 7.2, there
    with a bias correction in place of this beginning). Validation, samples, the exported folder and the ``state_dict``
    of a checkpoint have the average; the weights that are trained are beside it in the checkpoint, for resuming. After
    ``fit`` the model holds the average. Weights have to be whole in every process, not sharded.

    Args:
        decay: share of the average that a step keeps.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"trainer.callbacks: found AverageWeights with decay {decay}, expected one in (0, 1)")
        self.decay = decay
        self._average: AveragedModel | None = None
        self._step, self._swapped = 0, False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make room for the average; refuse what is no byte model."""
        if not isinstance(pl_module, ByteLMModule):
            raise ConfigError("trainer.callbacks: found AverageWeights, expected it with a byte model only")
        if isinstance(trainer.strategy, ShardedStrategy):
            raise ConfigError("trainer.callbacks: found AverageWeights with trainer.strategy sharded, expected ddp")
        if stage == "fit":
            self._average = AveragedModel(pl_module.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
            self._average.requires_grad_(False)
            self._step, self._swapped = 0, False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go where the model went."""
        self._room.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the weights, if the optimiser made a step."""
        assert isinstance(pl_module, ByteLMModule)
        if trainer.global_step > self._step:
            self._room.update_parameters(pl_module.model)
            self._step = trainer.global_step

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in."""
        if self.active:
            self._swap(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the weights back."""
        if self._swapped:
            self._swap(pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the average in the model."""
        if stage == "fit" and self.active:
            self._swap(pl_module)
            self._average = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the average into ``state_dict``, and the weights that are trained beside it."""
        if not self.active:
            return
        live = {name: t for name, t in checkpoint["state_dict"].items() if name.startswith(_PREFIX)}
        kept = {_PREFIX + name: t for name, t in self._room.module.state_dict().items()}
        average, trained = (live, kept) if self._swapped else (kept, live)
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **average}
        checkpoint[_KEY] = {"trained": trained, "num_averaged": int(self._room.n_averaged), "step": self._step}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the average and the weights of a run; a checkpoint without an average begins one."""
        if _KEY not in checkpoint or self._average is None:
            return
        assert isinstance(pl_module, ByteLMModule)
        saved = checkpoint[_KEY]
        self._average.module.load_state_dict(_of_model(checkpoint["state_dict"]))
        self._average.n_averaged.fill_(saved["num_averaged"])
        self._step = saved["step"]
        pl_module.model.load_state_dict(_of_model(saved["trained"]))

    @property
    def active(self) -> bool:
        """Whether there is an average."""
        return self._average is not None and bool(self._average.n_averaged > 0)

    @property
    def _room(self) -> AveragedModel:
        assert self._average is not None
        return self._average

    @contextlib.contextmanager
    def applied(self, pl_module: L.LightningModule) -> Iterator[None]:
        """The model with the average in the place of its weights, where there is one."""
        swap = self.active and not self._swapped
        if swap:
            self._swap(pl_module)
        try:
            yield
        finally:
            if swap:
                self._swap(pl_module)

    def _swap(self, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ByteLMModule)
        for kept, live in zip(self._room.module.parameters(), pl_module.model.parameters(), strict=True):
            before = live.data.clone()
            live.data.copy_(kept.data)
            kept.data.copy_(before)
        self._swapped = not self._swapped


def averaged_weights(trainer: L.Trainer, pl_module: L.LightningModule) -> contextlib.AbstractContextManager[None]:
    """The model as it is to be measured and written: with the average of its weights, if the trainer keeps one."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, AverageWeights):
            return callback.applied(pl_module)
    return contextlib.nullcontext()


def _of_model(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(_PREFIX): t for name, t in weights.items() if name.startswith(_PREFIX)}

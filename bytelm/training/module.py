"""The LightningModule: it connects model, metrics, optimiser and logs, and computes nothing itself."""

import math
from typing import Any

import lightning as L
from torch import Tensor

from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError
from bytelm.metrics import BitsPerCharacter, HeadAccuracy, HeadBits
from bytelm.model.build import build_model
from bytelm.model.byte_lm import cross_entropy
from bytelm.model.config import ModelConfig
from bytelm.model.presets import get_preset
from bytelm.training.optimizer import OptimizerConfig


class ByteLMModule(L.LightningModule):
    """Trains a byte model on windows of a corpus.

    Args:
        config: the model, field by field; or leave it out and name a preset.
        preset: ``tiny``, ``small``, ``base``, ``1.3b`` or ``6.5b``.
        encoding: name of the encoding of the corpora.
        optimizer: AdamW and its schedule.
        seed: of the initial weights.
    """

    def __init__(
        self,
        config: ModelConfig | None = None,
        preset: str | None = None,
        encoding: str = "dense-ja",
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (config is None) == (preset is None):
            raise ConfigError(
                f"model: found config {'given' if config else 'missing'} and preset {preset!r}, expected exactly one"
            )
        self.config = config if config is not None else get_preset(str(preset))
        self.encoding_name = get_encoding(encoding).name
        self.optimizer_config, self.seed = optimizer, seed
        self.model = build_model(self.config, seed)
        self.head_bits = HeadBits(self.config.patch)
        self.head_accuracy = HeadAccuracy(self.config.patch)
        self.bits_per_char: dict[str, BitsPerCharacter] = {}

    def setup(self, stage: str) -> None:
        """Check that windows fit the model."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None and data.window > self.config.context:
            raise ConfigError(
                f"data.window: found {data.window}, expected at most the model's context of {self.config.context} bytes"
            )
        if data is not None and data.patch != self.config.patch:
            raise ConfigError(f"data.patch: found {data.patch}, expected the model's patch of {self.config.patch}")

    def training_step(self, batch_BL: Tensor, batch_idx: int) -> Tensor:
        """Mean nats per byte over all heads."""
        nats_BTK = self.model.patch_nats(batch_BL)
        loss = nats_BTK.mean()
        self.log("train/nats_per_byte", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Make the metrics that depend on the corpus."""
        self._start_evaluation("valid")

    def on_test_epoch_start(self) -> None:
        """Make the metrics that depend on the corpus."""
        self._start_evaluation("test")

    def validation_step(self, batch_BL: Tensor, batch_idx: int) -> None:
        """Add a batch to the metrics."""
        self._evaluate(batch_BL)

    def test_step(self, batch_BL: Tensor, batch_idx: int) -> None:
        """Add a batch to the metrics."""
        self._evaluate(batch_BL)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics."""
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics."""
        self._log_evaluation("test")

    def _start_evaluation(self, split: str) -> None:
        manifest = self.trainer.datamodule.corpus(split).manifest  # type: ignore[attr-defined]
        ratio = manifest.bytes / max(1, manifest.characters)
        self.bits_per_char = {law: BitsPerCharacter(ratio).to(self.device) for law in self.config.laws}
        self.head_bits.reset()
        self.head_accuracy.reset()

    def _evaluate(self, batch_BL: Tensor) -> None:
        logits_BTKV, targets_BTK = self.model.predict(batch_BL)
        nats_BTK = cross_entropy(logits_BTKV, targets_BTK)
        self.head_bits.update(nats_BTK)
        self.head_accuracy.update(logits_BTKV, targets_BTK)
        for law, metric in self.bits_per_char.items():
            metric.update(nats_BTK[..., 0] if law == "next" else nats_BTK)

    def _log_evaluation(self, prefix: str) -> None:
        values = {f"{prefix}/bits_per_char": self.bits_per_char[self.config.laws[0]].compute()}
        values |= {f"{prefix}/bits_per_char_{law}": metric.compute() for law, metric in self.bits_per_char.items()}
        values |= {f"{prefix}/bits_head_{j}": bits for j, bits in enumerate(self.head_bits.compute(), 1)}
        values |= {f"{prefix}/accuracy_head_{j}": share for j, share in enumerate(self.head_accuracy.compute(), 1)}
        self.log_dict({k: v.float() for k, v in values.items()}, sync_dist=False)
        self.log(f"{prefix}_bpc", values[f"{prefix}/bits_per_char"].float(), prog_bar=True, logger=False)

    def configure_optimizers(self) -> Any:
        """AdamW with a schedule per step."""
        num_steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(num_steps):
            raise ConfigError("trainer.max_steps: found no end of training, expected max_steps or max_epochs")
        optimizer, schedule = self.optimizer_config.build(self.model, int(num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put configuration and encoding beside the weights, as plain values."""
        encoding = get_encoding(self.encoding_name)
        checkpoint["bytelm"] = {
            "model": self.config.to_dict(),
            "encoding": {"name": encoding.name, "digest": encoding.digest, "table": encoding.to_dict()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another encoding or another model."""
        saved = checkpoint.get("bytelm", {})
        encoding = get_encoding(self.encoding_name)
        digest = saved.get("encoding", {}).get("digest")
        if digest != encoding.digest:
            raise ConfigError(f"checkpoint: encoding digest {digest}, expected {encoding.digest} of {encoding.name}")
        if saved["model"] != self.config.to_dict():
            raise ConfigError("checkpoint: its model configuration is not the one of this run")

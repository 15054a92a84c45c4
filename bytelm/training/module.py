"""The LightningModule: it connects model, metrics, optimiser and logs, and computes nothing itself."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError
from bytelm.hub.checkpoint import save_checkpoint
from bytelm.metrics import BitsPerCharacter, HeadAccuracy, HeadBits
from bytelm.model.byte_lm import ByteLM, cross_entropy
from bytelm.model.config import ModelConfig, NextPatchConfig
from bytelm.training.activation_checkpointing import checkpoint_activations, compile_blocks
from bytelm.training.gradients import average_rows, clip_gradient_norm
from bytelm.training.initial import initial_model
from bytelm.training.loader import own_windows
from bytelm.training.loss import LossConfig, TrainingLoss
from bytelm.training.optimizer import OptimizerConfig
from bytelm.training.parallel import mean_of_processes
from bytelm.training.sharding import ShardedStrategy, is_sharded


class ByteLMModule(L.LightningModule):
    """Trains a byte model on windows of a corpus.

    Args:
        config: the model, field by field; or leave it out and name a preset or a folder.
        preset: ``tiny``, ``small``, ``base``, ``1.3b`` or ``6.5b``.
        encoding: name of the encoding of the corpora.
        optimizer: AdamW, or Muon with AdamW, and its schedule.
        loss: what is minimised.
        seed: of the initial weights.
        init_from: checkpoint folder to take model and weights from.
        next_patch: the module to add, if the model has none.
        train_only: the part to train; the others keep their weights. All by default.
        compile: put the blocks of the body through ``torch.compile``.
        activation_checkpointing: keep the inputs of blocks alone for the backward pass, which runs the blocks again.
    """

    def __init__(
        self,
        config: ModelConfig | None = None,
        preset: str | None = None,
        encoding: str = "dense-ja",
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (frozen)
        seed: int = 0,
        init_from: Path | None = None,
        next_patch: NextPatchConfig | None = None,
        train_only: Literal["next_patch"] | None = None,
        loss: LossConfig = LossConfig(),  # noqa: B008 (frozen)
        activation_checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        chosen = get_encoding(encoding)
        self.encoding_name = chosen.name
        self.optimizer_config, self.seed = optimizer, seed
        self.model = initial_model(config, preset, init_from, next_patch, chosen, seed)
        self.config = self.model.config
        self.loss = TrainingLoss(loss, self.config.patch, chosen)
        self.num_steps = 1
        self.row_tables = optimizer.row_tables(self.model)
        # DDP sends dense gradients; those of rows are averaged before the optimiser's step.
        self._ddp_params_and_buffers_to_ignore = {f"model.{name}" for name in self.row_tables}
        if train_only is not None:
            if self.model.next_patch is None:
                raise ConfigError(
                    f"model.train_only: found {train_only!r}, expected a model that has next_patch, or model.next_patch"
                )
            self.model.requires_grad_(False)
            self.model.next_patch.requires_grad_(True)
        if compile:
            compile_blocks(self.model)
        if activation_checkpointing:
            checkpoint_activations(self.model)
        self.head_bits = HeadBits(self.config.patch)
        self.head_accuracy = HeadAccuracy(self.config.patch)
        self.bits_per_char: dict[str, BitsPerCharacter] = {}
        self.depth = 0 if self.config.next_patch is None else self.config.next_patch.depth
        self.next_patch_bits: list[HeadBits] = []

    def setup(self, stage: str) -> None:
        """Check that windows fit the model."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None and data.window > self.config.context:
            raise ConfigError(
                f"data.window: found {data.window}, expected at most the model's context of {self.config.context} bytes"
            )
        if data is not None and data.patch != self.config.patch:
            raise ConfigError(f"data.patch: found {data.patch}, expected the model's patch of {self.config.patch}")
        ahead = self.depth * self.config.patch
        if data is not None and data.window <= ahead:
            raise ConfigError(
                f"data.window: found {data.window}, expected more than the {ahead} bytes of next_patch.depth"
            )

    def configure_model(self) -> None:
        """Leave a shard of the weights in each process, where the strategy is to."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            if not is_sharded(self.model):
                strategy.shard(self.model)
        elif isinstance(strategy, ModelParallelStrategy):
            raise ConfigError("trainer.strategy: found ModelParallelStrategy, expected sharded, which is one")

    def training_step(self, batch_BL: Tensor, batch_idx: int) -> Tensor:
        """The loss of a batch; the figures that are logged are means over all processes."""
        loss, figures = self.loss(self.model, batch_BL, self.global_step / self.num_steps)
        figures = mean_of_processes(figures)
        self.log_dict({f"train/{name}": figure for name, figure in figures.items()}, prog_bar=True)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Average the gradients of rows over all processes."""
        if self.trainer.world_size > 1:
            average_rows([table.weight for table in self.row_tables.values()], self.trainer.world_size)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip ``next_patch`` apart from the rest, which so learns as if it were not there."""
        ahead = {id(p) for p in self.model.next_patch.parameters()} if self.model.next_patch is not None else set()
        plain = not ahead and not self.row_tables
        if not gradient_clip_val or plain or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for inside in (True, False):
            clip_gradient_norm([p for p in parameters if (id(p) in ahead) == inside], gradient_clip_val)

    def on_validation_epoch_start(self) -> None:
        """Make the metrics that depend on the corpus."""
        self._start_evaluation("valid")

    def on_test_epoch_start(self) -> None:
        """Make the metrics that depend on the corpus."""
        self._start_evaluation("test")

    def validation_step(self, batch_BL: Tensor, batch_idx: int) -> None:
        """Add a batch to the metrics."""
        self._evaluate(batch_BL, own_windows(self.trainer.val_dataloaders, batch_BL, batch_idx))

    def test_step(self, batch_BL: Tensor, batch_idx: int) -> None:
        """Add a batch to the metrics."""
        self._evaluate(batch_BL, own_windows(self.trainer.test_dataloaders, batch_BL, batch_idx))

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
        self.next_patch_bits = [HeadBits(self.config.patch).to(self.device) for _ in range(self.depth)]
        self.head_accuracy.reset()

    def _evaluate(self, batch_BL: Tensor, num_own: int) -> None:
        h_BTD, windows, targets_BTK = (part[:num_own] for part in self.model.read(batch_BL))
        logits_BTKV = self.model.heads(h_BTD, windows, targets_BTK)
        nats_BTK = cross_entropy(logits_BTKV, targets_BTK)
        self.head_bits.update(nats_BTK)
        self.head_accuracy.update(logits_BTKV, targets_BTK)
        for law, metric in self.bits_per_char.items():
            metric.update(nats_BTK[..., 0] if law == "next" else nats_BTK)
        if self.model.next_patch is not None:
            ahead = self.model.predict_ahead(h_BTD, windows, targets_BTK)
            for n, (bits, logits) in enumerate(zip(self.next_patch_bits, ahead, strict=True), 1):
                bits.update(cross_entropy(logits, targets_BTK[:, n:]))

    def _log_evaluation(self, prefix: str) -> None:
        values = {f"{prefix}/bits_per_char": self.bits_per_char[self.config.laws[0]].compute()}
        values |= {f"{prefix}/bits_per_char_{law}": metric.compute() for law, metric in self.bits_per_char.items()}
        values |= {f"{prefix}/bits_head_{j}": bits for j, bits in enumerate(self.head_bits.compute(), 1)}
        values |= {f"{prefix}/accuracy_head_{j}": share for j, share in enumerate(self.head_accuracy.compute(), 1)}
        values |= {f"{prefix}/bits_next_patch_{n}": b.compute().mean() for n, b in enumerate(self.next_patch_bits, 1)}
        self.log_dict({k: v.float() for k, v in values.items()}, sync_dist=False)
        self.log(f"{prefix}_bpc", values[f"{prefix}/bits_per_char"].float(), prog_bar=True, logger=False)

    def configure_optimizers(self) -> Any:
        """The optimiser with a schedule per step.

        Raises:
            ConfigError: there is no end of training; gradients of rows are to be clipped by value; or the weights are
                sharded, and the algorithm is not AdamW.
        """
        if self.row_tables and self.trainer.gradient_clip_algorithm == "value":
            raise ConfigError(
                "trainer.gradient_clip_algorithm: found 'value', expected 'norm' with model.optimizer.tables: read_rows"
            )
        if is_sharded(self.model) and self.optimizer_config.algorithm != "adamw":
            found = self.optimizer_config.algorithm
            raise ConfigError(
                f"model.optimizer.algorithm: found {found!r} with trainer.strategy sharded, expected 'adamw'"
            )
        configured = self.optimizer_config.configure(self.model, self.trainer.estimated_stepping_batches)
        self.num_steps = int(self.trainer.estimated_stepping_batches)
        return configured

    def export(self, folder: Path, provenance: dict[str, Any], whole: ByteLM | None = None) -> None:
        """Write the model, or ``whole``, a copy that is not sharded, to a folder that ``bytelm.load`` reads."""
        save_checkpoint(folder, whole or self.model, get_encoding(self.encoding_name), provenance)

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
        if ModelConfig.from_dict(saved["model"]) != self.config:
            raise ConfigError("checkpoint: its model configuration is not the one of this run")

"""The LightningModule: it connects model, metrics, optimiser and logs, and computes nothing itself."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError
from bytelm.hub.checkpoint import save_checkpoint
from bytelm.hub.export_family import check_exportable, export_llama, has_tables
from bytelm.hub.token_checkpoint import save_token_model
from bytelm.metrics import BitsPerCharacter, HeadAccuracy, HeadBits
from bytelm.model.byte_lm import ByteLM, cross_entropy
from bytelm.model.config import ModelConfig
from bytelm.model.documents import DocumentBoundaries
from bytelm.model.ends import LMHeadConfig, NextPatchConfig
from bytelm.tokenizer import BPETokenizer, Tokenizer
from bytelm.training.activation_checkpointing import checkpoint_activations, compile_blocks
from bytelm.training.batches import LabelledBatch, parts_of
from bytelm.training.gradients import average_rows, clip_gradient_norm
from bytelm.training.initial import initial_model
from bytelm.training.loader import own_windows
from bytelm.training.loss import LossConfig, TrainingLoss, control_bytes
from bytelm.training.ngram_choice import choose_ngrams
from bytelm.training.optimizer import OptimizerConfig
from bytelm.training.parallel import mean_of_processes
from bytelm.training.sharding import ShardedStrategy, is_sharded


class ByteLMModule(L.LightningModule):
    """Trains a byte model, or its twin of tokens, on windows of a corpus.

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
        tokenizer: folder of a BPE, for a model of its tokens; none by default.
        inside_documents: keep attention inside of documents, where windows hold several; their positions begin anew. On
            a GPU by FlexAttention.
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
        tokenizer: Path | None = None,
        inside_documents: bool = False,
    ) -> None:
        super().__init__()
        chosen = get_encoding(encoding)
        self.tokenizer = Tokenizer(chosen) if tokenizer is None else BPETokenizer.from_folder(tokenizer)
        self.encoding_name = chosen.name
        self.optimizer_config, self.seed = optimizer, seed
        self.model = initial_model(config, preset, init_from, next_patch, chosen, seed)
        self.config = self.model.config
        _check_symbols(self.config, self.tokenizer)
        self.loss = TrainingLoss(loss, self.config.patch, chosen if tokenizer is None else None)
        self.boundaries = _boundaries(self.config, self.tokenizer) if inside_documents else None
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

    def on_fit_start(self) -> None:
        """Choose n-grams, where the weights do not come with a choice."""
        choose_ngrams(self.model, self.trainer.datamodule)  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        """Leave a shard of the weights in each process, where the strategy is to."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            if not is_sharded(self.model):
                strategy.shard(self.model)
        elif isinstance(strategy, ModelParallelStrategy):
            raise ConfigError("trainer.strategy: found ModelParallelStrategy, expected sharded, which is one")

    def training_step(self, batch: Tensor | LabelledBatch, batch_idx: int) -> Tensor:
        """The loss of a batch; the figures that are logged are means over all processes."""
        bytes_BL, counts_BL = parts_of(batch)
        loss, figures = self.loss(self.model, bytes_BL, self.global_step / self.num_steps, counts_BL, self.boundaries)
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

    def validation_step(self, batch: Tensor | LabelledBatch, batch_idx: int) -> None:
        """Add a batch to the metrics."""
        bytes_BL, counts_BL = parts_of(batch)
        self._evaluate(bytes_BL, counts_BL, own_windows(self.trainer.val_dataloaders, bytes_BL, batch_idx))

    def test_step(self, batch: Tensor | LabelledBatch, batch_idx: int) -> None:
        """Add a batch to the metrics."""
        bytes_BL, counts_BL = parts_of(batch)
        self._evaluate(bytes_BL, counts_BL, own_windows(self.trainer.test_dataloaders, bytes_BL, batch_idx))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics."""
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics."""
        self._log_evaluation("test")

    def _start_evaluation(self, split: str) -> None:
        self.size = self.trainer.datamodule.size(split)  # type: ignore[attr-defined]
        ratio = self.size.symbols_per_character
        self.bits_per_char = {law: BitsPerCharacter(ratio).to(self.device) for law in self.config.laws}
        self.head_bits.reset()
        self.next_patch_bits = [HeadBits(self.config.patch).to(self.device) for _ in range(self.depth)]
        self.head_accuracy.reset()

    def _evaluate(self, bytes_BL: Tensor, counts_BL: Tensor | None, num_own: int) -> None:
        counts_BL = torch.ones_like(bytes_BL, dtype=torch.bool) if counts_BL is None else counts_BL
        counts_BTK = counts_BL.unflatten(1, (-1, self.config.patch))[:num_own, 1:]
        h_BTD, windows, targets_BTK = (part[:num_own] for part in self.model.read(bytes_BL, self.boundaries))
        logits_BTKV = self.model.heads(h_BTD, windows, targets_BTK)
        nats_BTK = cross_entropy(logits_BTKV, targets_BTK)
        self.head_bits.update(nats_BTK, counts_BTK)
        self.head_accuracy.update(logits_BTKV, targets_BTK, counts_BTK)
        for law, metric in self.bits_per_char.items():
            heads = slice(1) if law == "next" else slice(None)
            metric.update(nats_BTK[..., heads][counts_BTK[..., heads]])
        if self.model.next_patch is not None:
            ahead = self.model.predict_ahead(h_BTD, windows, targets_BTK)
            for n, (bits, logits) in enumerate(zip(self.next_patch_bits, ahead, strict=True), 1):
                bits.update(cross_entropy(logits, targets_BTK[:, n:]), counts_BTK[:, n:])

    def _log_evaluation(self, prefix: str) -> None:
        values = {f"{prefix}/bits_per_char": self.bits_per_char[self.config.laws[0]].compute()}
        values |= {f"{prefix}/bits_per_char_{law}": metric.compute() for law, metric in self.bits_per_char.items()}
        values[f"{prefix}/bits_per_utf8_byte"] = values[f"{prefix}/bits_per_char"] * self.size.characters_per_utf8_byte
        for name, metric in (("bits", self.head_bits), ("accuracy", self.head_accuracy)):
            of_heads = metric.compute().reshape(-1)  # torchmetrics makes one number of one head
            values |= {f"{prefix}/{name}_head_{j}": value for j, value in enumerate(of_heads, 1)}
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
        """Write the model, or ``whole``, a copy that is not sharded, to a folder that ``bytelm.load`` reads.

        A model of tokens is written in LLaMA's layout; one with n-gram tables, which that lacks, in our own.
        """
        model = whole or self.model
        match self.tokenizer:
            case Tokenizer(encoding=encoding):
                save_checkpoint(folder, model, encoding, provenance)
            case BPETokenizer() as tokenizer:
                save = save_token_model if has_tables(model.config) else export_llama
                save(folder, model, tokenizer, provenance)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put configuration and encoding, or what tells a BPE from others, beside the weights, as plain values."""
        coder: dict[str, Any] = {"name": self.tokenizer.name, "digest": self.tokenizer.digest}
        if isinstance(self.tokenizer, Tokenizer):
            coder["table"] = self.tokenizer.encoding.to_dict()
        checkpoint["bytelm"] = {"model": self.config.to_dict(), "encoding": coder}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another encoding or another model."""
        saved, coder = checkpoint.get("bytelm", {}), self.tokenizer
        digest = saved.get("encoding", {}).get("digest")
        if digest != coder.digest:
            raise ConfigError(f"checkpoint: encoding digest {digest}, expected {coder.digest} of {coder.name}")
        if ModelConfig.from_dict(saved["model"]) != self.config:
            raise ConfigError("checkpoint: its model configuration is not the one of this run")


def _check_symbols(config: ModelConfig, tokenizer: Tokenizer | BPETokenizer) -> None:
    """A model of tokens has a tokenizer and a row for each of its ids, and can be written."""
    if isinstance(config.heads, LMHeadConfig) != isinstance(tokenizer, BPETokenizer):
        raise ConfigError(
            f"model.tokenizer: found {'one' if isinstance(tokenizer, BPETokenizer) else 'none'} for heads of kind"
            f" {config.heads.kind!r}, expected one for 'lm' and none for others"
        )
    if config.vocab_size != tokenizer.vocab_size:
        raise ConfigError(
            f"model.config.vocab_size: found {config.vocab_size}, expected {tokenizer.vocab_size} of model.tokenizer"
        )
    if isinstance(tokenizer, BPETokenizer):
        check_exportable(config)


def _boundaries(config: ModelConfig, tokenizer: Tokenizer | BPETokenizer) -> DocumentBoundaries:
    """What finds documents in windows."""
    option = "model.inside_documents"
    if config.position.kind == "alibi":
        raise ConfigError(f"{option}: found true with position 'alibi', expected positions that can begin anew")
    if isinstance(tokenizer, BPETokenizer):
        return DocumentBoundaries(tokenizer.bos_id)
    control_bytes(tokenizer.encoding, option)
    return DocumentBoundaries(tokenizer.encoding.controls[tokenizer.bos_token][0])

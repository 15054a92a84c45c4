"""The LightningModule that trains draft heads on a frozen model of another family."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from bytelm.errors import ConfigError
from bytelm.hub.draft_heads import check_fingerprint, fingerprint, save_draft_heads
from bytelm.hub.family_folder import load_family
from bytelm.metrics import DraftAgreement
from bytelm.model.build import add_draft_heads
from bytelm.model.byte_lm import draft_nats
from bytelm.model.ends import DraftHeadsConfig
from bytelm.training.loader import own_windows
from bytelm.training.optimizer import OptimizerConfig

_HEADS = "model.draft_heads."


class DraftHeadsModule(L.LightningModule):
    """Trains Medusa heads to guess what a frozen model itself would say later, on windows of text.

    The frozen weights keep their float type, get no gradients and go into no checkpoint; the heads learn in float32. A
    model that reads prompts both ways is run causally, as it is where it generates.

    Args:
        frozen: folder of the model's checkpoint, with its tokenizer.
        draft_heads: the heads.
        optimizer: AdamW and its schedule.
        dtype: float type of the frozen weights, by default that of the file.
    """

    def __init__(
        self,
        frozen: Path,
        draft_heads: DraftHeadsConfig = DraftHeadsConfig(),  # noqa: B008 (frozen)
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (frozen)
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    ) -> None:
        super().__init__()
        checkpoint = load_family(frozen, dtype=None if dtype is None else getattr(torch, dtype))
        self.model, self.tokenizer = checkpoint.model, checkpoint.tokenizer
        self.model.requires_grad_(False)
        self.draft_heads_config, self.optimizer_config = draft_heads, optimizer
        add_draft_heads(self.model, draft_heads)
        self.config = self.model.config
        self.agreement = DraftAgreement(draft_heads.num_heads, self.config.vocab_size)
        self.strict_loading = False
        self.eval()

    def setup(self, stage: str) -> None:
        """Check that windows fit the model."""
        data, num_heads = self.trainer.datamodule, self.draft_heads_config.num_heads  # type: ignore[attr-defined]
        if data is not None and not num_heads < data.window <= self.config.context:
            raise ConfigError(
                f"data.window: found {data.window}, expected more than the {num_heads} tokens that the heads draft and"
                f" at most the model's context of {self.config.context}"
            )

    def training_step(self, batch_BT: Tensor, batch_idx: int) -> Tensor:
        """Mean nats per drafted token against the law that the model itself has there."""
        loss = draft_nats(*self.model.predict_drafts(batch_BT)).mean()
        self.log("train/draft_nats", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self.agreement.reset()

    def on_test_epoch_start(self) -> None:
        """Begin to count."""
        self.agreement.reset()

    def validation_step(self, batch_BT: Tensor, batch_idx: int) -> None:
        """Count a batch."""
        self._count(batch_BT, own_windows(self.trainer.val_dataloaders, batch_BT, batch_idx))

    def test_step(self, batch_BT: Tensor, batch_idx: int) -> None:
        """Count a batch."""
        self._count(batch_BT, own_windows(self.trainer.test_dataloaders, batch_BT, batch_idx))

    def on_validation_epoch_end(self) -> None:
        """Log the shares."""
        self._log_agreement("val")

    def on_test_epoch_end(self) -> None:
        """Log the shares."""
        self._log_agreement("test")

    def _count(self, batch_BT: Tensor, num_own: int) -> None:
        logits_BTKV, law_BTV = self.model.predict_drafts(batch_BT)
        self.agreement.update(logits_BTKV[:num_own].argmax(-1), law_BTV[:num_own].argmax(-1))

    def _log_agreement(self, prefix: str) -> None:
        shares = self.agreement.compute()
        leading = shares.pop("leading").float()
        self.log(f"{prefix}/drafts_accepted", leading, prog_bar=True)
        self.log_dict(
            {f"{prefix}/{name}_head_{k}": v.float() for name, values in shares.items() for k, v in enumerate(values, 1)}
        )

    def configure_optimizers(self) -> Any:
        """AdamW for the heads alone, with a schedule per step."""
        assert self.model.draft_heads is not None
        return self.optimizer_config.configure(self.model.draft_heads, self.trainer.estimated_stepping_batches)

    def export(self, folder: Path, provenance: dict[str, Any]) -> None:
        """Write the heads to a folder that :func:`bytelm.hub.draft_heads.load_draft_heads` reads."""
        save_draft_heads(folder, self.model, provenance)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the heads alone, with what tells the frozen model from others."""
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: weights[name] for name in weights if name.startswith(_HEADS)}
        checkpoint["bytelm"] = {"draft_heads": self.draft_heads_config.to_dict(), "frozen": fingerprint(self.model)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other heads or of another model."""
        saved = checkpoint.get("bytelm", {})
        if saved.get("draft_heads") != self.draft_heads_config.to_dict():
            raise ConfigError(
                f"checkpoint: found the draft heads {saved.get('draft_heads')},"
                f" expected {self.draft_heads_config.to_dict()}"
            )
        check_fingerprint(saved.get("frozen"), self.model, "checkpoint")

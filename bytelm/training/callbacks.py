"""Callbacks: a checkpoint folder that loads without Lightning, and generated text while training."""

import logging
from pathlib import Path

import lightning as L

from bytelm.errors import ConfigError
from bytelm.hub.language_model import LanguageModel
from bytelm.model.byte_lm import ByteLM
from bytelm.tokenizer import BPETokenizer, Tokenizer
from bytelm.training.averaging import averaged_weights
from bytelm.training.draft_heads import DraftHeadsModule
from bytelm.training.module import ByteLMModule
from bytelm.training.parallel import in_first_process
from bytelm.training.sharding import whole_model

log = logging.getLogger(__name__)


def run_folder(trainer: L.Trainer) -> Path:
    """Where this run writes: the logger's folder, or the trainer's root. All processes must ask, for one tells all."""
    return Path(trainer.log_dir or trainer.default_root_dir)


class ExportModel(L.Callback):
    """Writes ``RUN/model``, which can be loaded without Lightning, after each validation and at the end of ``fit``.

    Args:
        folder: name of the folder inside the run folder.
    """

    def __init__(self, folder: str = "model") -> None:
        self.folder = folder

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Export, but not for the sanity check or a validation outside of ``fit``."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._export(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Export the last state."""
        self._export(trainer, pl_module)

    def _export(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ByteLMModule | DraftHeadsModule)
        target = run_folder(trainer) / self.folder
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        provenance = {"step": trainer.global_step, "epoch": trainer.current_epoch, "metrics": metrics}
        with averaged_weights(trainer, pl_module):
            if isinstance(pl_module, DraftHeadsModule):
                in_first_process(lambda: pl_module.export(target, provenance))
            else:
                whole = whole_model(pl_module.model)
                in_first_process(lambda: pl_module.export(target, provenance, whole))


class LogSamples(L.Callback):
    """Generates from prompts after each validation; to the logger as text, and to ``RUN/samples.txt``.

    Samples stop where the model's context is full; a prompt that fills it is left out, and a warning says so.

    Args:
        prompts: texts to continue.
        max_new_tokens: symbols per sample, at most.
        temperature: 0 for greedy.
    """

    def __init__(
        self,
        prompts: list[str] = ["日本の"],  # noqa: B006 (not changed)
        max_new_tokens: int = 120,
        temperature: float = 1.0,
    ) -> None:
        self.prompts, self.max_new_tokens, self.temperature = list(prompts), max_new_tokens, temperature
        self._fitting: list[str] = []
        self._num_new = max_new_tokens

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse what is no byte model; find the prompts that fit."""
        if not isinstance(pl_module, ByteLMModule):
            raise ConfigError("trainer.callbacks: found LogSamples, expected it with a byte model only")
        tokenizer, config = pl_module.tokenizer, pl_module.config
        opening = len(tokenizer.opening(config.patch))
        rooms = {prompt: config.context - opening - len(tokenizer.encode(prompt)) for prompt in self.prompts}
        self._fitting = [prompt for prompt, room in rooms.items() if room > 0]
        self._num_new = min([self.max_new_tokens, *(rooms[prompt] for prompt in self._fitting)])
        for prompt in rooms.keys() - set(self._fitting):
            log.warning("samples: prompt %r fills the model's context of %d; left out", prompt, config.context)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Generate with the model's default law and seed 0."""
        assert isinstance(pl_module, ByteLMModule)
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._fitting:
            return
        folder = run_folder(trainer)
        with averaged_weights(trainer, pl_module):
            whole = whole_model(pl_module.model)
            in_first_process(lambda: self._write(folder, trainer, whole, pl_module.tokenizer))

    def _write(
        self, folder: Path, trainer: L.Trainer, model: ByteLM | None, tokenizer: Tokenizer | BPETokenizer
    ) -> None:
        assert model is not None
        out = LanguageModel(model, tokenizer).generate(
            self._fitting,
            max_new_tokens=self._num_new,
            do_sample=self.temperature > 0,
            temperature=self.temperature,
        )
        text = "\n\n".join(f"{prompt}|{new}" for prompt, new in zip(self._fitting, out.texts, strict=True))
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "samples.txt", "a", encoding="utf-8") as file:
            file.write(f"--- step {trainer.global_step}\n{text}\n\n")
        for logger in trainer.loggers:
            add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
            if add_text is not None:
                add_text("samples", text, trainer.global_step)

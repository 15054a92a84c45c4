"""Steps whose loss or gradient is not finite."""

import lightning as L
import pytest
import torch
from support import LIGHTNING_ADVICE, tiny_config

from bytelm.errors import ConfigError, TrainingError
from bytelm.training import ByteLMModule, CorpusData, OptimizerConfig
from bytelm.training.non_finite import SkipNonFinite

pytestmark = LIGHTNING_ADVICE


class Spoil(L.Callback):
    """Makes what some batches give NaN or infinite, and keeps the weights before every batch."""

    def __init__(self, batches, how):
        self.batches, self.how, self.weights, self.moments = batches, how, [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.index = batch_idx
        self.weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))

    def on_before_backward(self, trainer, module, loss):
        if self.how == "loss" and self.index in self.batches:
            loss.data.fill_(torch.inf)

    def on_after_backward(self, trainer, module):
        if self.how != "loss" and self.index in self.batches:
            next(module.parameters()).grad[0, 0] = float(self.how)

    def on_train_end(self, trainer, module):
        self.on_train_batch_start(trainer, module, None, -1)
        self.moments = [int(state["step"]) for state in trainer.optimizers[0].state.values()]


def fit(corpora, folder, spoil, stop_after=3, **options):
    module = ByteLMModule(config=tiny_config("independent"), optimizer=OptimizerConfig(lr=1e-2, warmup_steps=1))
    data = CorpusData(corpora["train"], corpora["valid"], window=16, batch_size=2, valid_windows=1)
    skip = SkipNonFinite(stop_after)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=8,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        default_root_dir=folder,
        callbacks=[spoil, skip],
        **options,
    )
    trainer.fit(module, data)
    return trainer, skip


@pytest.mark.parametrize("how", ["loss", "nan", "inf"])
def test_a_bad_step_leaves_everything_as_it_was(how, corpora, tmp_path):
    spoil = Spoil({2, 3, 5}, how)
    trainer, skip = fit(corpora, tmp_path, spoil)
    same = [torch.equal(before, after) for before, after in zip(spoil.weights, spoil.weights[1:], strict=False)]
    assert same == [index in {2, 3, 5} for index in range(8)]
    assert set(spoil.moments) == {5}
    assert (trainer.global_step, skip.skipped, skip.in_a_row) == (8, 3, 0)
    assert trainer.callback_metrics["train/skipped_steps"] == 3
    kept = sorted(path.name for path in (tmp_path / "non_finite").iterdir())
    assert kept == [f"step-0000000{step}.pt" for step in (2, 3, 5)]
    saved = torch.load(tmp_path / "non_finite" / "step-00000003.pt", weights_only=True)
    batches = CorpusData(corpora["train"], window=16, batch_size=2).train_dataloader()
    assert torch.equal(saved["batches"][0], list(batches)[3])
    assert (saved["step"], len(saved["losses"])) == (3, 1)


def test_all_parts_of_the_gradient_are_kept(corpora, tmp_path):
    _, skip = fit(corpora, tmp_path, Spoil({2}, "nan"), accumulate_grad_batches=2)
    assert skip.skipped == 1
    saved = torch.load(tmp_path / "non_finite" / "step-00000001.pt", weights_only=True)
    assert len(saved["batches"]) == len(saved["losses"]) == 2


def test_too_many_in_a_row_end_the_run(corpora, tmp_path):
    spoil = Spoil({1, 3, 4, 5, 6}, "nan")
    with pytest.raises(TrainingError, match=r"^step 5: found .* not finite 3 times in a row, expected fewer than 3"):
        fit(corpora, tmp_path, spoil)
    assert len(list((tmp_path / "non_finite").iterdir())) == 4


def test_without_the_callback_the_weights_are_lost(corpora, tmp_path, monkeypatch):
    monkeypatch.setattr(SkipNonFinite, "on_before_optimizer_step", lambda *args: None)
    spoil = Spoil({2}, "nan")
    fit(corpora, tmp_path, spoil)
    assert spoil.weights[-1].isnan().any()


def test_nothing_to_leave_out(corpora, tmp_path):
    trainer, skip = fit(corpora, tmp_path, Spoil(set(), "nan"))
    assert skip.skipped == 0
    assert "train/skipped_steps" not in trainer.callback_metrics
    assert not (tmp_path / "non_finite").exists()
    with pytest.raises(ConfigError, match=r"^SkipNonFinite\.stop_after: found 0, expected at least 1$"):
        SkipNonFinite(0)

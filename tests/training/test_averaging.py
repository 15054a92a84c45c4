import lightning as L
import pytest
import torch
from support import LIGHTNING_ADVICE, tiny_config

import bytelm
from bytelm.errors import ConfigError
from bytelm.training import ByteLMModule, CorpusData, OptimizerConfig
from bytelm.training.averaging import AverageWeights
from bytelm.training.callbacks import ExportModel, LogSamples

pytestmark = [
    *LIGHTNING_ADVICE,
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*resuming from a checkpoint that ended before the epoch"),
]
OPTIMIZER = OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=3)
DECAY = 0.8


class Recorder(L.Callback):
    """Keeps the weights after each step, those at each validation, its figure, and a checkpoint written meanwhile."""

    def __init__(self, folder=None):
        self.folder = folder
        self.steps, self.measured, self.figures = [], [], []

    def on_train_start(self, trainer, module):
        self.last = trainer.global_step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step > self.last:
            self.steps.append(weights_of(module.model))
            self.last = trainer.global_step

    def on_validation_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0 and not trainer.sanity_checking:
            self.measured.append(weights_of(module.model))
            if self.folder is not None:
                trainer.save_checkpoint(self.folder / "measuring.ckpt")

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.figures.append(trainer.callback_metrics["val/bits_per_char"].item())


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def average(steps):
    """The recurrence of the docstring in float64, from the weights after the first step on."""
    found = {name: tensor.double() for name, tensor in steps[0].items()}
    for weights in steps[1:]:
        found = {name: DECAY * tensor + (1 - DECAY) * weights[name].double() for name, tensor in found.items()}
    return found


def close(weights, expected):
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor.double(), expected[name].double(), rtol=1e-5, atol=1e-6, msg=name)


def of_checkpoint(weights):
    return {name.removeprefix("model."): t for name, t in weights.items()}


def fit(corpora, folder, callbacks, accumulate=1):
    module = ByteLMModule(config=tiny_config(), optimizer=OPTIMIZER)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=6,
        val_check_interval=3 * accumulate,
        check_val_every_n_epoch=None,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=callbacks,
    )
    data = CorpusData(corpora["train"], corpora["valid"], window=48, batch_size=4)
    trainer.fit(module, data)
    return module


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("order", [1, -1])
def test_what_is_measured_and_written_is_the_average_of_the_steps(order, accumulate, corpora, tmp_path):
    recorder = Recorder(tmp_path)
    callbacks = [AverageWeights(DECAY), ExportModel(), LogSamples(["朝"], max_new_tokens=8), recorder][::order]
    module = fit(corpora, tmp_path, callbacks, accumulate=accumulate)
    assert (len(recorder.steps), len(recorder.measured)) == (6, 2 if accumulate == 1 else 1)
    for i, measured in enumerate(recorder.measured, 1):
        close(measured, average(recorder.steps[: 3 * i]))
    close(weights_of(bytelm.load(tmp_path / "model").model), average(recorder.steps))
    close(weights_of(module.model), average(recorder.steps))
    assert not same(recorder.steps[-1], weights_of(module.model))
    saved, done = torch.load(tmp_path / "measuring.ckpt", weights_only=True), 3 * len(recorder.measured)
    close(of_checkpoint(saved["state_dict"]), average(recorder.steps[:done]))
    assert same(of_checkpoint(saved["bytelm_averaging"]["trained"]), recorder.steps[done - 1])


def test_training_is_to_the_bit_as_without(corpora, tmp_path):
    plain, averaged = Recorder(), Recorder()
    module = fit(corpora, tmp_path, [plain])
    fit(corpora, tmp_path, [averaged, AverageWeights(DECAY)])
    assert all(same(a, b) for a, b in zip(plain.steps, averaged.steps, strict=True))
    assert same(weights_of(module.model), plain.steps[-1])
    assert plain.figures != averaged.figures


class SaveAt(L.Callback):
    """A checkpoint after a step."""

    def __init__(self, folder, step):
        self.folder, self.step = folder, step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.folder / "saved.ckpt")


def fit_one_batch(folder, callbacks, path=None):
    """Nine steps on one batch, so that it does not matter where in the data a run goes on."""
    module = ByteLMModule(config=tiny_config(), optimizer=OPTIMIZER)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=9,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=callbacks,
    )
    batch = torch.randint(0, 256, (4, 52), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    trainer.fit(module, torch.utils.data.DataLoader([batch] * 20, batch_size=None), ckpt_path=path)
    return module


def test_a_checkpoint_has_the_average_and_a_run_goes_on_from_the_weights(tmp_path):
    whole, resumed = Recorder(), Recorder()
    module = fit_one_batch(tmp_path, [AverageWeights(DECAY), whole, SaveAt(tmp_path, 6)])
    close(weights_of(module.model), average(whole.steps))
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    close(of_checkpoint(saved["state_dict"]), average(whole.steps[:6]))
    assert same(of_checkpoint(saved["bytelm_averaging"]["trained"]), whole.steps[5])
    again = fit_one_batch(tmp_path, [AverageWeights(DECAY), resumed], tmp_path / "saved.ckpt")
    assert all(same(a, b) for a, b in zip(whole.steps[6:], resumed.steps, strict=True))
    assert same(weights_of(again.model), weights_of(module.model))


def test_a_checkpoint_without_an_average_begins_one(tmp_path):
    plain, resumed = Recorder(), Recorder()
    fit_one_batch(tmp_path, [plain, SaveAt(tmp_path, 6)])
    module = fit_one_batch(tmp_path, [AverageWeights(DECAY), resumed], tmp_path / "saved.ckpt")
    assert same(resumed.steps[-1], plain.steps[-1])
    close(weights_of(module.model), average(resumed.steps))


def test_what_does_not_fit_is_refused():
    for decay in (0.0, 1.0, -0.5):
        with pytest.raises(
            ConfigError, match=rf"^trainer\.callbacks: found AverageWeights with decay {decay}, expected"
        ):
            AverageWeights(decay)
    with pytest.raises(ConfigError, match=r"^trainer\.callbacks: found AverageWeights, expected it with a byte model"):
        AverageWeights().setup(L.Trainer(accelerator="cpu", logger=False), L.LightningModule(), "fit")

import dataclasses
import json

import lightning as L
import numpy as np
import pytest
import torch
from support import LIGHTNING_ADVICE, tiny_config, tiny_model, trained_model

import bytelm
from bytelm.encoding import get_encoding
from bytelm.errors import CheckpointError, ConfigError
from bytelm.hub import save_checkpoint
from bytelm.model.ends import NextPatchConfig
from bytelm.training import ByteLMModule, CorpusData, OptimizerConfig
from bytelm.training.callbacks import ExportModel

pytestmark = LIGHTNING_ADVICE
OPTIMIZER = OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=3)
NEXT_PATCH = NextPatchConfig(byte_width=6, inner=20)
CONFIG = tiny_config("chained", True)


@pytest.fixture
def folder(tmp_path):
    save_checkpoint(tmp_path / "old", *trained_model("chained"))
    return tmp_path / "old"


@pytest.fixture
def data(corpora):
    return CorpusData(corpora["train"], corpora["valid"], window=48, batch_size=4)


class Losses(L.Callback):
    """Keeps the logged losses of every step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.steps.append({n: v.item() for n, v in trainer.callback_metrics.items() if n.startswith("train/")})


def fit(module, data, folder, steps=20, **options):
    losses = Losses()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=folder,
        callbacks=[losses, ExportModel()],
        **options,
    )
    trainer.fit(module, data)
    return losses.steps, trainer.validate(module, data, verbose=False)[0]


def test_frozen_training_changes_the_module_alone_and_lowers_its_loss(folder, data, tmp_path):
    module = ByteLMModule(init_from=folder, next_patch=NEXT_PATCH, train_only="next_patch", optimizer=OPTIMIZER)
    fresh = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    losses, figures = fit(module, data, tmp_path, 30)
    assert losses[-1]["train/next_patch_nats"] < losses[0]["train/next_patch_nats"] - 0.5
    exported = bytelm.load(tmp_path / "model")
    assert exported.config == dataclasses.replace(CONFIG, next_patch=NEXT_PATCH)
    old = bytelm.load(folder).model.state_dict()
    for name, tensor in exported.model.state_dict().items():
        if name.startswith("next_patch."):
            assert not torch.equal(tensor, fresh[name]), name
        else:
            assert torch.equal(tensor, old[name]), name
    _check_bits(module, data, figures)


def _check_bits(module, data, figures):
    windows = np.stack([batch.numpy() for loaded in data.val_dataloader() for batch in loaded])
    with torch.no_grad():
        h, patches, targets = module.model.read(torch.from_numpy(windows))
        for n, logits in enumerate(module.model.predict_ahead(h, patches, targets), 1):
            found = logits.double().log_softmax(-1).gather(-1, targets[:, n:, :, None])
            assert figures[f"val/bits_next_patch_{n}"] == pytest.approx(-float(found.mean()) / np.log(2), rel=1e-5)


def test_the_rest_learns_the_same_to_the_bit_without_the_module(data, tmp_path):
    runs = []
    for next_patch in (None, NEXT_PATCH):
        module = ByteLMModule(config=tiny_config(), next_patch=next_patch, optimizer=OPTIMIZER)
        losses, figures = fit(module, data, tmp_path / str(next_patch), 8, gradient_clip_val=0.1)
        runs.append((losses, figures, module.model.state_dict()))
    (plain, figures, weights), (more, all_figures, all_weights) = runs
    assert [s["train/nats_per_byte"] for s in plain] == [s["train/nats_per_byte"] for s in more]
    assert all(torch.equal(tensor, all_weights[name]) for name, tensor in weights.items())
    assert figures.items() <= all_figures.items()
    assert all_figures.keys() - figures.keys() == {"val/bits_next_patch_1", "val/bits_next_patch_2"}
    assert more[-1]["train/next_patch_nats"] < more[0]["train/next_patch_nats"]


@pytest.mark.parametrize("algorithm", ["norm", "value", None])
def test_clipping_bounds_both_parts(algorithm, data, tmp_path):
    class Clipped(ByteLMModule):
        def configure_gradient_clipping(self, *args, **kwargs):
            super().configure_gradient_clipping(*args, **kwargs)
            for part in (self.model.next_patch, self.model.blocks):
                grads = torch.cat([p.grad.flatten() for p in part.parameters()])
                sizes.append(float(grads.abs().max() if algorithm == "value" else grads.norm()))

    sizes = []
    module = Clipped(config=tiny_config(), next_patch=NEXT_PATCH, optimizer=OPTIMIZER)
    clip = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm} if algorithm else {}
    fit(module, data, tmp_path, 2, **clip)
    assert (max(sizes) <= 1e-3 * (1 + 1e-4)) == (algorithm is not None)


def test_a_folder_that_has_the_module_keeps_it(folder, tmp_path):
    first = ByteLMModule(init_from=folder, next_patch=NEXT_PATCH)
    save_checkpoint(tmp_path / "new", first.model, get_encoding("dense-ja"))
    for next_patch in (None, NEXT_PATCH):
        again = ByteLMModule(init_from=tmp_path / "new", next_patch=next_patch, seed=7).model
        assert again.config == first.config
        assert all(torch.equal(t, again.state_dict()[n]) for n, t in first.model.state_dict().items())
    other = dataclasses.replace(NEXT_PATCH, inner=21)
    with pytest.raises(ConfigError, match=r"^model\.init_from: .*new: next_patch: found .*inner=20.*, expected none"):
        ByteLMModule(init_from=tmp_path / "new", next_patch=other)


def test_what_does_not_fit_is_refused_in_one_line(folder, tmp_path):
    def refused(message, kind=ConfigError, **arguments):
        with pytest.raises(kind, match=message) as caught:
            ByteLMModule(**arguments)
        assert "\n" not in str(caught.value)

    refused(r"^model: found preset 'tiny' and init_from .*, expected exactly one", preset="tiny", init_from=folder)
    refused(r"^model\.init_from: .*old: found encoding 'dense-ja' .* of 'utf8'", init_from=folder, encoding="utf8")
    refused(r"^model\.train_only: found 'next_patch', expected", init_from=folder, train_only="next_patch")
    refused(r"nowhere: no such folder", CheckpointError, init_from=tmp_path / "nowhere")
    save_checkpoint(tmp_path / "independent", tiny_model("independent"), get_encoding("dense-ja"))
    refused(
        r"^model\.init_from: .*independent: heads\.kind: found 'independent', expected 'chained'",
        init_from=tmp_path / "independent",
        next_patch=NEXT_PATCH,
    )


def test_a_window_must_be_longer_than_the_depth(corpora, tmp_path):
    module = ByteLMModule(config=tiny_config(), next_patch=NEXT_PATCH, optimizer=OPTIMIZER)
    short = CorpusData(corpora["train"], corpora["valid"], window=8, batch_size=4)
    with pytest.raises(
        ConfigError, match=r"^data\.window: found 8, expected more than the 8 bytes of next_patch\.depth"
    ):
        fit(module, short, tmp_path)


def test_checkpoints_from_before_the_module_load(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["model"].pop("next_patch") is None
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert bytelm.load(folder).model.next_patch is None
    table = get_encoding("dense-ja")
    saved = {"model": config["model"], "encoding": {"digest": table.digest}}
    ByteLMModule(config=CONFIG).on_load_checkpoint({"bytelm": saved})
    with pytest.raises(ConfigError, match=r"^checkpoint: its model configuration"):
        ByteLMModule(config=CONFIG, next_patch=NEXT_PATCH).on_load_checkpoint({"bytelm": saved})

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from support import LIGHTNING_ADVICE, tiny_config

import bytelm
from bytelm.cli.lightning import run
from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError, CorpusError
from bytelm.training import ByteLMModule, CorpusData, OptimizerConfig
from bytelm.training.callbacks import ExportModel, LogSamples

pytestmark = LIGHTNING_ADVICE
OPTIMIZER = OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=3)


def make_trainer(folder, **options):
    defaults = {
        "accelerator": "cpu",
        "max_steps": 24,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "reload_dataloaders_every_n_epochs": 1,
        "default_root_dir": folder,
    }
    return L.Trainer(**defaults | options)


def make_data(corpora, **options):
    defaults = {"train": corpora["train"], "valid": corpora["valid"], "window": 48, "batch_size": 4}
    return CorpusData(**defaults | options)


@pytest.mark.parametrize("kind", ["independent", "chained"])
def test_a_few_steps_lower_the_loss_and_export_a_model(kind, corpora, tmp_path):
    module = ByteLMModule(config=tiny_config(kind), optimizer=OPTIMIZER)
    data = make_data(corpora)
    callbacks = [ExportModel(), LogSamples(["朝", "夜" * 9999], max_new_tokens=9999)]
    trainer = make_trainer(tmp_path, callbacks=callbacks)
    before = trainer.validate(module, data, verbose=False)[0]
    assert not (tmp_path / "model").exists()
    trainer.fit(module, data)
    after = trainer.validate(module, data, verbose=False)[0]
    assert after["val/bits_per_char"] < before["val/bits_per_char"] - 1
    names = {f"val/bits_per_char_{law}" for law in module.config.laws}
    names |= {f"val/{figure}_head_{j}" for figure in ("bits", "accuracy") for j in range(1, 5)}
    assert names <= set(after)
    assert after["val/accuracy_head_1"] > before["val/accuracy_head_1"]
    lm = bytelm.load(tmp_path / "model")
    assert lm.config == module.config
    assert lm.tokenizer.encoding == get_encoding("dense-ja")
    assert all(torch.equal(p, module.model.state_dict()[n]) for n, p in lm.model.state_dict().items())
    samples = (tmp_path / "samples.txt").read_text(encoding="utf-8")
    assert samples.startswith("--- step ")
    assert "朝|" in samples
    assert "夜|" not in samples
    _check_bits(module, data, after)


def _check_bits(module, data, logged):
    """Logged figures against a loop over the validation windows in numpy."""
    windows = np.stack([batch.numpy() for loaded in data.val_dataloader() for batch in loaded])
    with torch.no_grad():
        nats = module.model.patch_nats(torch.from_numpy(windows)).double().numpy()
    manifest = data.corpus("valid").manifest
    ratio = manifest.bytes / manifest.characters
    assert logged["val/bits_per_char"] == pytest.approx(nats.mean() / np.log(2) * ratio, rel=1e-5)
    assert logged["val/bits_per_char_next"] == pytest.approx(nats[..., 0].mean() / np.log(2) * ratio, rel=1e-5)
    assert [logged[f"val/bits_head_{j}"] for j in range(1, 5)] == pytest.approx(nats.mean((0, 1)) / np.log(2), rel=1e-5)


def test_resuming_checks_the_model_and_the_encoding(corpora, tmp_path):
    module = ByteLMModule(config=tiny_config(), optimizer=OPTIMIZER)
    trainer = make_trainer(tmp_path, max_steps=2)
    data = make_data(corpora, windows_per_epoch=8)  # so that the checkpoint stands at the end of an epoch
    trainer.fit(module, data)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)["bytelm"]
    assert saved["model"] == module.config.to_dict()
    assert saved["encoding"]["digest"] == get_encoding("dense-ja").digest
    again = ByteLMModule(config=tiny_config(), optimizer=OPTIMIZER, seed=9)
    make_trainer(tmp_path, max_steps=3).fit(again, data, ckpt_path=path)
    other = ByteLMModule(config=tiny_config("independent"), optimizer=OPTIMIZER)
    with pytest.raises(ConfigError, match=r"^checkpoint: its model configuration is not the one of this run"):
        other.on_load_checkpoint({"bytelm": saved})
    utf8 = ByteLMModule(config=tiny_config(), encoding="utf8")
    with pytest.raises(ConfigError, match=r"^checkpoint: encoding digest .* of utf8"):
        utf8.on_load_checkpoint({"bytelm": saved})


def test_windows_that_do_not_fit_are_refused(corpora, tmp_path):
    module = ByteLMModule(config=tiny_config(context=32), optimizer=OPTIMIZER)
    with pytest.raises(ConfigError, match=r"^data\.window: found 48, expected at most the model's context of 32 bytes"):
        make_trainer(tmp_path).fit(module, make_data(corpora))
    with pytest.raises(ConfigError, match=r"^data\.window: found 50, expected a multiple of patch = 4"):
        make_data(corpora, window=50)
    patches = make_data(corpora, patch=2)
    with pytest.raises(ConfigError, match=r"^data\.patch: found 2, expected the model's patch of 4"):
        make_trainer(tmp_path).fit(ByteLMModule(config=tiny_config(), optimizer=OPTIMIZER), patches)


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 0), ("num_workers", -1), ("windows_per_epoch", 0), ("valid_windows", 0), ("patch", 0)],
)
def test_bad_numbers_are_named(corpora, field, value):
    with pytest.raises(ConfigError, match=rf"^data\.{field}: found {value}, expected at least"):
        make_data(corpora, **{field: value})


def test_a_corpus_of_another_encoding_is_refused(corpora, tmp_path):
    module = ByteLMModule(config=tiny_config(), optimizer=OPTIMIZER)
    with pytest.raises(CorpusError, match="utf8"):
        make_trainer(tmp_path).fit(module, make_data(corpora, train=corpora["utf8"]))
    with pytest.raises(CorpusError, match="utf8"):
        make_trainer(tmp_path).fit(module, make_data(corpora, valid=corpora["utf8"]))


def test_what_is_missing_is_named(corpora, tmp_path):
    module = ByteLMModule(config=tiny_config(), optimizer=OPTIMIZER)
    with pytest.raises(ConfigError, match=r"^data\.train: missing"):
        make_trainer(tmp_path).fit(module, make_data(corpora, train=None))
    with pytest.raises(ConfigError, match=r"^model: found none, expected exactly one of config, preset and init_from$"):
        ByteLMModule()
    with pytest.raises(ConfigError, match=r"^model: found config and preset 'tiny', expected exactly one"):
        ByteLMModule(config=tiny_config(), preset="tiny")
    with pytest.raises(ConfigError, match=r"^trainer\.max_steps: found no end"):
        make_trainer(tmp_path, max_steps=-1, max_epochs=-1).fit(module, make_data(corpora))
    with pytest.raises(CorpusError, match="expected at least one window"):
        make_trainer(tmp_path).fit(
            ByteLMModule(config=tiny_config(context=8_192), optimizer=OPTIMIZER), make_data(corpora, window=8_192)
        )


class Collector(L.Callback):
    """Keeps the training batches of every epoch."""

    def __init__(self):
        self.epochs = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.epochs.setdefault(trainer.current_epoch, []).append(batch.clone())


def test_epochs_differ_and_runs_repeat(corpora, tmp_path):
    runs = []
    for _ in range(2):
        collector = Collector()
        module = ByteLMModule(config=tiny_config(), optimizer=OPTIMIZER)
        trainer = make_trainer(tmp_path, max_steps=6, max_epochs=3, callbacks=[collector], limit_val_batches=0)
        trainer.fit(module, make_data(corpora, windows_per_epoch=8, seed=5))
        runs.append(({e: torch.cat(b) for e, b in collector.epochs.items()}, module.model.state_dict()))
    (first, weights), (second, again) = runs
    assert set(first) == {0, 1, 2}
    assert all(torch.equal(first[e], second[e]) for e in first)
    assert all(torch.equal(weights[n], again[n]) for n in weights)
    assert first[0].shape == (8, 52)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])
    other = make_data(corpora, windows_per_epoch=8, seed=6).train_dataloader()
    assert not torch.equal(torch.cat(list(other)), first[0])


def test_validation_windows_are_spread_evenly(corpora):
    everything = torch.cat(list(make_data(corpora).val_dataloader()))
    some = torch.cat(list(make_data(corpora, valid_windows=3).val_dataloader()))
    assert len(some) == 3
    assert torch.equal(some[0], everything[0])
    assert torch.equal(some[-1], everything[-1])
    assert torch.equal(everything[0, 48:], everything[1, :4])
    data = make_data(corpora, test=corpora["valid"], valid_windows=3)
    assert torch.equal(torch.cat(list(data.test_dataloader())), everything)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["model"].update(optimizer={"lrr": 1}), "lrr"),
        (lambda c: c["model"]["config"]["attention"].update(num_kv_heads=3), "num_kv_heads"),
        (lambda c: c["data"].update(window=50), "window"),
    ],
)
def test_a_typo_in_a_configuration_file_is_one_line_that_names_it(corpora, tmp_path, change, named, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls what jsonargparse renamed
    config = {
        "trainer": {"max_steps": 1, "logger": False, "accelerator": "cpu"},
        "model": {"config": tiny_config().to_dict()},
        "data": {"train": str(corpora["train"]), "valid": str(corpora["valid"]), "window": 48},
    }
    change(config)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(ConfigError, match=named) as caught:
        run(["fit", "--config", str(path)])
    assert "\n" not in str(caught.value)

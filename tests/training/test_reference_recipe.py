"""The reference recipe at ``tiny`` width: its first steps."""

from pathlib import Path

import lightning as L
import pytest
import yaml

from bytelm.cli.lightning import read_settings
from bytelm.corpus import build_corpus
from bytelm.corpus.default_text import default_texts
from bytelm.encoding import get_encoding
from bytelm.model.config import ModelConfig
from bytelm.model.presets import get_preset
from bytelm.training import ByteLMModule, CorpusData, OptimizerConfig

RECIPE = Path(__file__).parents[2] / "experiments" / "configs" / "reference_6.5b.yaml"
TINY_WIDTHS = ("width", "num_blocks", "attention", "feedforward", "merger")

pytestmark = [
    pytest.mark.skipif(not RECIPE.is_file(), reason="only in a source tree"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    (folder / "texts.txt").write_text("\n".join(default_texts()[:300]), encoding="utf-8")
    build_corpus([folder / "texts.txt"], get_encoding("utf8"), folder / "corpus", workers=0)
    return folder / "corpus"


class Watch(L.Callback):
    """Losses and rates of the first steps, after which training stops."""

    def __init__(self, steps):
        self.steps, self.losses, self.rates, self.windows = steps, [], [], 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        self.windows += len(batch)
        trainer.should_stop = trainer.global_step >= self.steps

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


def run_first_steps(corpus, steps, windows_per_step):
    """Train as the recipe says, on one CPU process without worker processes and logs, at ``tiny`` width and depth."""
    settings = read_settings(["--config", str(RECIPE)])
    trainer, model, data = settings["trainer"], settings["model"], settings["data"]
    tiny = get_preset("tiny").to_dict()
    small = ModelConfig.from_dict({**model["config"], **{name: tiny[name] for name in TINY_WIDTHS}})
    assert small.context == data["window"] == 11_520
    module = ByteLMModule(
        config=small,
        encoding=model["encoding"],
        optimizer=OptimizerConfig.from_dict(model["optimizer"]),
        activation_checkpointing=model["activation_checkpointing"],
    )
    windows = CorpusData(train=corpus, window=data["window"], batch_size=data["batch_size"], seed=data["seed"])
    watch = Watch(steps)
    kept = ("precision", "max_steps", "gradient_clip_val", "check_val_every_n_epoch", "log_every_n_steps")
    L.Trainer(
        **{name: trainer[name] for name in kept},
        accumulate_grad_batches=windows_per_step // data["batch_size"],
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        limit_val_batches=0,
        logger=False,
        callbacks=[watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, windows)
    return watch


def check(watch, steps, windows_per_step):
    assert watch.windows == steps * windows_per_step
    warmup = 2_000
    assert watch.rates == pytest.approx([5e-4 * (step + 1) / (warmup + 1) for step in range(steps)])
    assert all(0 < loss < 6.5 for loss in watch.losses)  # log 256 = 5.55 at the beginning, by the byte
    first, last = watch.losses[:windows_per_step], watch.losses[-windows_per_step:]
    assert sum(last) < sum(first)


def test_the_recipe_is_the_stated_one():
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    trainer, data = settings["trainer"], settings["data"]
    gpus = trainer["devices"] * trainer["num_nodes"]
    windows = data["batch_size"] * trainer["accumulate_grad_batches"] * gpus
    assert (windows, windows * data["window"], trainer["max_steps"]) == (512, 5_898_240, 170_000)
    optimizer = OptimizerConfig.from_dict(settings["model"]["optimizer"])
    rates = [optimizer.lr * optimizer.factor(step, trainer["max_steps"]) for step in (2_000, 169_999)]
    assert rates == pytest.approx([5e-4, 1e-5])
    assert ModelConfig.from_dict(settings["model"]["config"]) == get_preset("6.5b")


def test_first_steps(corpus):
    """Two steps of two windows of 11,520 bytes instead of 512."""
    check(run_first_steps(corpus, 2, 2), 2, 2)


@pytest.mark.slow
def test_first_steps_of_all_windows(corpus):
    """Two steps of 512 windows of 11,520 bytes."""
    check(run_first_steps(corpus, 2, 512), 2, 512)

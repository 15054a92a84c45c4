"""The reference recipe at ``tiny`` width: its first steps."""

import copy
import math
from pathlib import Path

import lightning as L
import pytest
import yaml
from support import LIGHTNING_ADVICE

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
    *LIGHTNING_ADVICE,
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
        self.steps, self.losses, self.rates, self.windows, self.moved = steps, [], [], 0, []

    def on_train_start(self, trainer, module):
        self.before = copy.deepcopy(module.model.state_dict())

    def on_train_end(self, trainer, module):
        self.moved = [(after - self.before[name]).abs().max() for name, after in module.model.state_dict().items()]

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        self.windows += len(batch)
        trainer.should_stop = trainer.global_step >= self.steps

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


def run_first_steps(corpus, steps, windows_per_step, precision):
    """Train as the recipe says, at ``tiny`` width and depth, in one CPU process, where its 64 GPUs share a step, and
    without worker processes, validation and logs.
    """
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
    windows = CorpusData(
        train=corpus,
        window=data["window"],
        batch_size=data["batch_size"],
        windows_per_epoch=steps * windows_per_step,  # of a corpus that is shorter: a step ends where an epoch does
        seed=data["seed"],
    )
    watch = Watch(steps)
    kept = ("max_steps", "gradient_clip_val", "check_val_every_n_epoch", "log_every_n_steps")
    L.Trainer(
        **{name: trainer[name] for name in kept},
        precision=precision,
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
    rates = [5e-4 * (step + 1) / 2_001 for step in range(steps)]
    assert watch.rates == pytest.approx(rates)
    assert watch.losses == pytest.approx([math.log(256)] * len(watch.losses), abs=0.1)
    # AdamW moves a weight by the rate at most, but for its decay (Kingma and Ba 2015, section 2.1)
    assert all(0 < moved < 1.1 * sum(rates) for moved in watch.moved)


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


@pytest.mark.parametrize(
    ("precision", "steps", "windows"), [("32-true", 2, 2), pytest.param("bf16-mixed", 1, 1, marks=pytest.mark.slow)]
)
def test_first_steps(corpus, precision, steps, windows):
    """So many windows of 11,520 bytes per step instead of 512."""
    check(run_first_steps(corpus, steps, windows, precision), steps, windows)


@pytest.mark.slow
def test_first_steps_of_all_windows(corpus):
    """Two steps of 512 windows of 11,520 bytes; in float32, which is faster where the processor has no bfloat16."""
    check(run_first_steps(corpus, 2, 512, "32-true"), 2, 512)

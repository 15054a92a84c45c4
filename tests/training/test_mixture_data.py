"""Training on several corpora: shares, resume to the bit, and what the run records."""

import json
from collections import Counter

import lightning as L
import pytest
import torch
from support import LIGHTNING_ADVICE, TEXTS, tiny_config

from bytelm.corpus import Corpus, CoveringWindows, MixedWindows, build_corpus
from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError, CorpusError
from bytelm.training import ByteLMModule, CorpusData, OptimizerConfig, WeightedCorpus
from bytelm.training.run_record import RecordRun
from bytelm.training.save_run import SaveRun

pytestmark = [
    *LIGHTNING_ADVICE,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork"),
]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Corpora whose bytes tell them apart: text of one letter each, of different sizes."""
    root, folders = tmp_path_factory.mktemp("three"), []
    for number, letter in enumerate("abc"):
        source = root / f"{letter}.txt"
        source.write_text(letter * (500 * (number + 1)), encoding="utf-8")
        build_corpus(source, get_encoding("utf8"), root / letter)
        folders.append(root / letter)
    return folders


def weighted(folders, weights):
    return [WeightedCorpus(folder, weight) for folder, weight in zip(folders, weights, strict=True)]


def letter_of(window) -> str:
    return max("abc", key=lambda letter: int((window == ord(letter)).sum()))


@pytest.mark.parametrize("workers", [0, 2])
def test_windows_have_their_shares(three, workers):
    data = CorpusData(
        weighted(three, [0.6, 0.3, 0.1]), window=32, batch_size=5, windows_per_epoch=200, num_workers=workers
    )
    batches = list(data.train_dataloader())
    assert {tuple(batch.shape) for batch in batches} == {(5, 36)}
    assert Counter(letter_of(window) for batch in batches for window in batch) == {"a": 120, "b": 60, "c": 20}
    for batch in range(0, 40, 2):  # ten windows at a time, as the weights have tenths
        letters = Counter(letter_of(window) for half in batches[batch : batch + 2] for window in half)
        assert letters == {"a": 6, "b": 3, "c": 1}


def test_an_epoch_is_as_long_as_all_corpora(three):
    data = CorpusData(weighted(three, [1, 1, 1]), window=32, batch_size=1)
    assert len(data.train_dataloader()) == sum(500 * (i + 1) + 5 for i in range(3)) // 32


def test_one_corpus_is_drawn_as_before(three):
    """A folder, and no list of one: windows begin at random bytes."""
    data, listed = (CorpusData(train, window=32, batch_size=8) for train in (three[2], weighted(three[2:], [1])))
    assert data.mixture is None
    assert len(listed.mixture) == 1
    assert data.digest("train") != listed.digest("train")


class Seen(L.Callback):
    def __init__(self, stop_at=None):
        self.batches, self.stop_at = [], stop_at

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if len(self.batches) == self.stop_at:
            raise RuntimeError("killed")
        self.batches.append(batch.clone())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    for name, texts in (("x", TEXTS * 5), ("y", TEXTS[::-1] * 3)):
        (root / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8")
        build_corpus(root / f"{name}.txt", get_encoding("dense-ja"), root / name)
    return [root / "x", root / "y"]


def fit(two, folder, *, seen, ckpt_path=None, workers=0, weights=(0.7, 0.3)):
    L.seed_everything(3, verbose=False)
    module = ByteLMModule(
        config=tiny_config("independent"), optimizer=OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=3)
    )
    data = CorpusData(
        weighted(two, weights), window=16, batch_size=2, windows_per_epoch=14, num_workers=workers, seed=4
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=18,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=folder,
        callbacks=[seen, RecordRun(), SaveRun(every_n_steps=1)],
    )
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module


@pytest.mark.parametrize(("stop_at", "workers"), [(3, 0), (9, 2), (14, 0)])
def test_a_run_goes_on_to_the_bit(two, tmp_path, stop_at, workers):
    whole, before, after = Seen(), Seen(stop_at), Seen()
    expected = fit(two, tmp_path / "whole", seen=whole)
    with pytest.raises(RuntimeError, match="killed"):
        fit(two, tmp_path / "run", seen=before)
    last = max((tmp_path / "run").rglob("step-*.ckpt"), key=lambda path: int(path.stem.removeprefix("step-")))
    found = fit(two, tmp_path / "run", seen=after, ckpt_path=last, workers=workers)
    step = int(last.stem.removeprefix("step-"))
    batches = before.batches[:step] + after.batches
    assert len(batches) == len(whole.batches) == 18
    assert len(after.batches) < 18
    assert all(map(torch.equal, batches, whole.batches))
    # epochs of the trainer follow one another: no position is used twice
    windows = [CoveringWindows(Corpus.open(folder), 20, seed=4, stream=i) for i, folder in enumerate(two)]
    expected_windows = MixedWindows(list(zip(windows, (0.7, 0.3), strict=True)), size=36)
    assert [w.tolist() for w in torch.cat(whole.batches)] == [w.tolist() for w in expected_windows]
    assert all(map(torch.equal, found.state_dict().values(), expected.state_dict().values()))


def test_the_run_records_the_weights(two, tmp_path):
    fit(two, tmp_path, seen=Seen())
    (path,) = tmp_path.rglob("run.json")
    record = json.loads(path.read_text())
    assert [(entry["corpus"], entry["weight"], entry["share"]) for entry in record["mixture"]] == [
        (str(two[0]), 0.7, 0.7),
        (str(two[1]), 0.3, 0.3),
    ]
    assert all(len(entry["digest"]) == 64 and entry["bytes"] > 100 for entry in record["mixture"])
    last = max(tmp_path.rglob("step-*.ckpt"))
    with pytest.raises(CorpusError, match=r"data\.train: found a corpus of digest"):
        fit(two, tmp_path, seen=Seen(), ckpt_path=last, weights=(0.6, 0.4))


def test_what_is_refused(two, three, tmp_path):
    for weights in ([1, 0], [1, -2], [1, float("nan")]):
        with pytest.raises(ConfigError, match=r"data\.train: weight 1: found"):
            CorpusData(weighted(two, weights))
    with pytest.raises(ConfigError, match=r"data\.train: weights: found none"):
        CorpusData([])
    with pytest.raises(CorpusError, match="found a corpus of encoding 'utf8', expected 'dense-ja'"):
        CorpusData(weighted([two[0], three[0]], [1, 1]), window=16).train_dataloader()
    with pytest.raises(CorpusError, match=r"nowhere.manifest\.json: no such file"):
        CorpusData(weighted([two[0], tmp_path / "nowhere"], [1, 1]), window=16).train_dataloader()


def test_hashes_of_a_large_corpus_are_not_compared_at_the_start(two, tmp_path, monkeypatch, caplog):
    import shutil

    shutil.copytree(two[0], tmp_path / "x")
    shard = next((tmp_path / "x").glob("shard-*"))
    shard.write_bytes(bytes(len(shard.read_bytes())))
    with pytest.raises(CorpusError, match="altered"):
        CorpusData(tmp_path / "x").corpus("train")
    monkeypatch.setattr("bytelm.training.data.VERIFIED_BYTES", 100)
    with caplog.at_level("INFO"):
        CorpusData(tmp_path / "x").corpus("train")
    assert f"`bytelm corpus info {tmp_path / 'x'}` compares it" in caplog.text
    shard.write_bytes(b"x")
    with pytest.raises(CorpusError, match="found 1 bytes"):
        CorpusData(tmp_path / "x").corpus("train")

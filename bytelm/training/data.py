"""Corpora as batches of byte windows."""

import hashlib
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bytelm.corpus import ContiguousWindows, Corpus, RandomWindows
from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError
from bytelm.training.loader import EpochLoader, EvaluationLoader


class _Windows(Dataset[Tensor]):
    """A sequence of uint8 windows as tensors."""

    def __init__(self, windows: RandomWindows | ContiguousWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.windows[index]))


class CorpusData(L.LightningDataModule):
    """Windows of corpora that ``bytelm corpus build`` wrote.

    A batch is (B, L + P) uint8: L bytes that the model reads and the patch after them. Training windows start at random
    byte offsets, so that all phases are learned; validation and test windows are consecutive.

    Args:
        train: corpus folder for ``fit``.
        valid: corpus folder for ``fit`` and ``validate``.
        test: corpus folder for ``test``.
        window: L, bytes read per sample; a multiple of ``patch`` and at most the model's context.
        batch_size: windows per batch and device.
        num_workers: worker processes that read windows.
        seed: of the random offsets, with epoch and index.
        windows_per_epoch: training windows that make an epoch; by default as many as the corpus is long.
        valid_windows: at most so many validation windows, evenly spread; all by default.
        patch: P of the model.
    """

    def __init__(
        self,
        train: Path | None = None,
        valid: Path | None = None,
        test: Path | None = None,
        window: int = 11_520,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        windows_per_epoch: int | None = None,
        valid_windows: int | None = None,
        patch: int = 4,
    ) -> None:
        super().__init__()
        check_numbers(
            patch=(patch, 1),
            batch_size=(batch_size, 1),
            num_workers=(num_workers, 0),
            windows_per_epoch=(windows_per_epoch, 1),
            valid_windows=(valid_windows, 1),
        )
        if window < patch or window % patch:
            raise ConfigError(f"data.window: found {window}, expected a multiple of patch = {patch}")
        self.folders = {"train": train, "valid": valid, "test": test}
        self.window, self.batch_size, self.num_workers, self.seed = window, batch_size, num_workers, seed
        self.windows_per_epoch, self.valid_windows, self.patch = windows_per_epoch, valid_windows, patch
        self._corpora: dict[str, Corpus] = {}

    @property
    def length(self) -> int:
        """Bytes of a sample: the window and the patch after it."""
        return self.window + self.patch

    def given(self, split: str) -> bool:
        """Whether there is a folder for ``train``, ``valid`` or ``test``."""
        return self.folders[split] is not None

    def check(self, split: str, module: L.LightningModule) -> None:
        """Refuse a split that ``module`` cannot be trained or measured on.

        Raises:
            ConfigError: no folder was given.
            CorpusError: the folder is damaged, too short, or of another encoding than the model's.
        """
        encoding = get_encoding(str(module.encoding_name))
        ContiguousWindows(Corpus.open(self._folder(split), encoding, verify=False), self.length)

    def _folder(self, split: str) -> Path:
        folder = self.folders[split]
        if folder is None:
            raise ConfigError(f"data.{split}: missing, expected a folder that `bytelm corpus build` wrote")
        return folder

    def corpus(self, split: str) -> Corpus:
        """The corpus of ``train``, ``valid`` or ``test``, checked against the model's encoding when there is a trainer.

        Raises:
            ConfigError: no folder was given.
            CorpusError: the folder is damaged, or of another encoding than the model's.
        """
        folder = self._folder(split)
        if split not in self._corpora:
            name = getattr(self.trainer.lightning_module, "encoding_name", None) if self.trainer else None
            self._corpora[split] = Corpus.open(folder, None if name is None else get_encoding(name))
        return self._corpora[split]

    def digest(self, split: str) -> str:
        """SHA-256 of the digests of a corpus: of its shards, in their order, and of its encoding."""
        manifest = self.corpus(split).manifest
        parts = [manifest.encoding_digest, *(shard.sha256 for shard in manifest.shards)]
        return hashlib.sha256(" ".join(parts).encode("ascii")).hexdigest()

    def chars_per_symbol(self, split: str) -> float:
        """Characters per byte of a corpus, controls and what stands between documents counted as bytes."""
        manifest = self.corpus(split).manifest
        return manifest.characters / manifest.bytes

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Random windows of this epoch (the trainer reloads it every epoch)."""
        corpus = self.corpus("train")
        size = self.windows_per_epoch or max(1, corpus.num_bytes // self.window)
        epoch = self.trainer.current_epoch if self.trainer else 0
        windows = RandomWindows(corpus, self.length, seed=self.seed, epoch=epoch, size=size)
        return EpochLoader(_Windows(windows), self.batch_size, self.num_workers, epoch, self.trainer)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Consecutive windows of ``valid``."""
        return self._consecutive("valid")

    def test_dataloader(self) -> DataLoader[Tensor]:
        """Consecutive windows of ``test``."""
        return self._consecutive("test")

    def _consecutive(self, split: str) -> DataLoader[Tensor]:
        windows = _Windows(ContiguousWindows(self.corpus(split), self.length))
        chosen = spread(windows, self.valid_windows if split == "valid" else None)
        return EvaluationLoader(chosen, self.batch_size, self.num_workers, self.trainer)


def check_numbers(**numbers: tuple[int | None, int]) -> None:
    """Refuse the first of some fields of ``data`` whose value is below the least that is given with it.

    Raises:
        ConfigError: there is one.
    """
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise ConfigError(f"data.{name}: found {value}, expected at least {least}")


def spread(dataset: Dataset[Tensor], num: int | None) -> Dataset[Tensor]:
    """At most ``num`` samples of a data set, evenly spread over it; None for all."""
    total = len(dataset)  # type: ignore[arg-type]
    if num is None or num >= total:
        return dataset
    return torch.utils.data.Subset(dataset, np.linspace(0, total - 1, num).round().astype(int).tolist())

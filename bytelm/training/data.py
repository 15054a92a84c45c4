"""Corpora as batches of byte windows."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bytelm.corpus import ContiguousWindows, Corpus, CoveringWindows, MixedWindows, RandomWindows, Shares, Windows
from bytelm.encoding import Encoding, get_encoding
from bytelm.errors import ConfigError, CorpusError
from bytelm.training.loader import EpochLoader, EvaluationLoader
from bytelm.training.text_size import TextSize

log = logging.getLogger(__name__)

VERIFIED_BYTES = 1 << 32
"""A larger corpus is not read as a whole at every start (a second per gigabyte); ``bytelm corpus info`` does."""


@dataclass(frozen=True)
class WeightedCorpus:
    """One of several corpora to train on.

    Attributes:
        corpus: its folder.
        weight: of its windows among those of all; decimal fractions are meant as they are written.
    """

    corpus: Path
    weight: float = 1.0


class _Windows(Dataset[Tensor]):
    """A sequence of uint8 windows as tensors."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.windows[index]))


class CorpusData(L.LightningDataModule):
    """Windows of corpora that ``bytelm corpus build`` wrote.

    A batch is (B, L + P) uint8: L bytes that the model reads and the patch after them. Training windows start at random
    byte offsets, so that all phases are learned; validation and test windows are consecutive. Of several corpora, each
    has its exact share of the windows, and the windows of one are all used before any comes again.

    Opening a corpus compares the sizes of its shards; their SHA-256 as well up to ``VERIFIED_BYTES``.

    Args:
        train: corpus folder for ``fit``, or a list of several with their weights.
        valid: corpus folder for ``fit`` and ``validate``.
        test: corpus folder for ``test``.
        window: L, bytes read per sample; a multiple of ``patch`` and at most the model's context.
        batch_size: windows per batch and device.
        num_workers: worker processes that read windows.
        seed: of the random offsets, with epoch and index.
        windows_per_epoch: training windows that make an epoch; by default as many as the corpora are long.
        valid_windows: at most so many validation windows, evenly spread; all by default.
        patch: P of the model.
    """

    def __init__(
        self,
        train: list[WeightedCorpus] | Path | None = None,
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
        self._weights = [entry.weight for entry in train] if isinstance(train, list) else None
        if self._weights is not None:
            try:
                self._shares = Shares(self._weights)
            except CorpusError as error:
                raise ConfigError(f"data.train: {error}") from None
        self.window, self.batch_size, self.num_workers, self.seed = window, batch_size, num_workers, seed
        self.windows_per_epoch, self.valid_windows, self.patch = windows_per_epoch, valid_windows, patch
        self._corpora: dict[str, list[Corpus]] = {}

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
        for folder in self._folders(split):
            ContiguousWindows(Corpus.open(folder, encoding, verify=False), self.length, self.patch)

    def _folders(self, split: str) -> Sequence[Path]:
        folder = self.folders[split]
        if folder is None:
            raise ConfigError(f"data.{split}: missing, expected a folder that `bytelm corpus build` wrote")
        return [entry.corpus for entry in folder] if isinstance(folder, list) else [folder]

    def corpora(self, split: str) -> list[Corpus]:
        """The corpora of ``train``, the one of ``valid`` or ``test``, checked against the model's encoding when there
        is a trainer.

        Raises:
            ConfigError: no folder was given.
            CorpusError: a folder is damaged, or of another encoding than the model's.
        """
        if split not in self._corpora:
            name = getattr(self.trainer.lightning_module, "encoding_name", None) if self.trainer else None
            encoding = None if name is None else get_encoding(name)
            self._corpora[split] = [_open(folder, encoding) for folder in self._folders(split)]
        return self._corpora[split]

    def corpus(self, split: str) -> Corpus:
        """The corpus of ``valid`` or ``test``, the first of ``train``; errors as :meth:`corpora`."""
        return self.corpora(split)[0]

    def digest(self, split: str) -> str:
        """SHA-256 of the digests of a corpus: of its shards, in their order, and of its encoding. Of several corpora:
        SHA-256 of their digests and weights.
        """
        digests = [_digest(corpus) for corpus in self.corpora(split)]
        if split != "train" or self._weights is None:
            return digests[0]
        parts = [f"{digest} {share}" for digest, share in zip(digests, self._shares.shares, strict=True)]
        return hashlib.sha256("\n".join(parts).encode("ascii")).hexdigest()

    @property
    def mixture(self) -> list[dict[str, Any]] | None:
        """Folder, weight, share of the windows, size and digest of each training corpus; None where there is one."""
        if self._weights is None:
            return None
        corpora = zip(self.corpora("train"), self._weights, self._shares.shares, strict=True)
        return [
            {
                "corpus": str(corpus.folder),
                "weight": weight,
                "share": float(share),
                "bytes": corpus.num_bytes,
                "digest": _digest(corpus),
            }
            for corpus, weight, share in corpora
        ]

    def training_symbols(self, most: int) -> NDArray[np.uint8]:
        """The first bytes of the training corpora, ``most`` at most; of several the same share of each."""
        corpora = self.corpora("train")
        share = min(1.0, most / sum(corpus.num_bytes for corpus in corpora))
        return np.concatenate([corpus.read(0, int(share * corpus.num_bytes)) for corpus in corpora])

    def chars_per_symbol(self, split: str) -> float:
        """Characters per byte of a corpus, controls and what stands between documents counted as bytes."""
        manifests = [corpus.manifest for corpus in self.corpora(split)]
        shares = self._shares.shares if split == "train" and self._weights is not None else [Fraction(1)]
        found = (share * m.characters / m.bytes for share, m in zip(shares, manifests, strict=True))
        return float(sum(found))

    def size(self, split: str) -> TextSize:
        """How much text the corpora of a split hold."""
        manifests = [corpus.manifest for corpus in self.corpora(split)]
        return TextSize(
            sum(manifest.bytes for manifest in manifests),
            sum(manifest.characters for manifest in manifests),
            sum(manifest.utf8_bytes for manifest in manifests),
        )

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Random windows of this epoch (the trainer reloads it every epoch)."""
        corpora = self.corpora("train")
        size = self.windows_per_epoch or max(1, sum(corpus.num_bytes for corpus in corpora) // self.window)
        epoch = self.trainer.current_epoch if self.trainer else 0
        windows = self._random(corpora[0], epoch, size) if self._weights is None else self._mixed(corpora, epoch, size)
        return EpochLoader(_Windows(windows), self.batch_size, self.num_workers, epoch, self.trainer)

    def _random(self, corpus: Corpus, epoch: int, size: int) -> Windows:
        return RandomWindows(corpus, self.length, seed=self.seed, epoch=epoch, size=size)

    def _mixed(self, corpora: Sequence[Corpus], epoch: int, size: int) -> Windows:
        assert self._weights is not None
        windows = [
            CoveringWindows(corpus, self.length, seed=self.seed, stream=stream, patch=self.patch)
            for stream, corpus in enumerate(corpora)
        ]
        return MixedWindows(list(zip(windows, self._weights, strict=True)), start=epoch * size, size=size)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Consecutive windows of ``valid``."""
        return self._consecutive("valid")

    def test_dataloader(self) -> DataLoader[Tensor]:
        """Consecutive windows of ``test``."""
        return self._consecutive("test")

    def _consecutive(self, split: str) -> DataLoader[Tensor]:
        windows = _Windows(ContiguousWindows(self.corpus(split), self.length, self.patch))
        chosen = spread(windows, self.valid_windows if split == "valid" else None)
        return EvaluationLoader(chosen, self.batch_size, self.num_workers, self.trainer)


def _open(folder: Path, encoding: Encoding | None) -> Corpus:
    corpus = Corpus.open(folder, encoding, verify=False)
    if corpus.num_bytes <= VERIFIED_BYTES:
        corpus.verify()
    else:
        _tell(
            f"{folder}: {corpus.num_bytes} bytes, whose sizes agree and whose SHA-256 was not compared; "
            f"`bytelm corpus info {folder}` compares it"
        )
    return corpus


@rank_zero_only
def _tell(message: str) -> None:
    log.info(message)


def _digest(corpus: Corpus) -> str:
    parts = [corpus.manifest.encoding_digest, *(shard.sha256 for shard in corpus.manifest.shards)]
    return hashlib.sha256(" ".join(parts).encode("ascii")).hexdigest()


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

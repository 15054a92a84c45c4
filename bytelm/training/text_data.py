"""Text as batches of windows of tokens."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bytelm.corpus import find_sources, iter_documents
from bytelm.errors import ConfigError, CorpusError
from bytelm.tokenizer import BPETokenizer
from bytelm.training.data import check_numbers, spread
from bytelm.training.loader import EpochLoader, EvaluationLoader
from bytelm.training.text_size import TextSize


class _Windows(Dataset[Tensor]):
    """Windows of one row of tokens, by where they begin."""

    def __init__(self, tokens: NDArray[np.int32], begins: NDArray[np.int64], length: int) -> None:
        self.tokens, self.begins, self.length = tokens, begins, length

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, index: int) -> Tensor:
        begin = int(self.begins[index])
        return torch.from_numpy(self.tokens[begin : begin + self.length].astype(np.int64))


class TextData(L.LightningDataModule):
    """Windows of text files in the tokens of the module that is trained.

    A batch is (B, L) int64. Each document is its tokens after BOS. Training windows begin at random tokens; validation
    and test windows follow one another. All tokens are held in memory, four bytes each.

    Args:
        train: files and folders for ``fit``, as ``bytelm corpus build`` reads them.
        valid: the same for ``fit`` and ``validate``.
        test: the same for ``test``.
        field: name of the JSON field or Parquet column that holds the text.
        split_blank_lines: whether blank lines separate the documents of a plain text file.
        max_tokens: of each of the three, no more are read.
        window: L, at most the model's context.
        batch_size: windows per batch and device.
        num_workers: worker processes that cut windows.
        seed: of the random offsets, with the epoch.
        windows_per_epoch: training windows that make an epoch; by default as many as the text is long.
        valid_windows: at most so many validation windows, evenly spread; all by default.
    """

    def __init__(
        self,
        train: Path | list[Path] | None = None,
        valid: Path | list[Path] | None = None,
        test: Path | list[Path] | None = None,
        field: str = "text",
        split_blank_lines: bool = False,
        max_tokens: int = 20_000_000,
        window: int = 512,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        windows_per_epoch: int | None = None,
        valid_windows: int | None = None,
    ) -> None:
        super().__init__()
        check_numbers(
            max_tokens=(max_tokens, 1),
            window=(window, 1),
            batch_size=(batch_size, 1),
            num_workers=(num_workers, 0),
            seed=(seed, 0),
            windows_per_epoch=(windows_per_epoch, 1),
            valid_windows=(valid_windows, 1),
        )
        self.sources = {"train": train, "valid": valid, "test": test}
        self.field, self.split_blank_lines, self.max_tokens = field, split_blank_lines, max_tokens
        self.window, self.batch_size, self.num_workers, self.seed = window, batch_size, num_workers, seed
        self.windows_per_epoch, self.valid_windows = windows_per_epoch, valid_windows
        self._tokens: dict[str, NDArray[np.int32]] = {}
        self._sizes: dict[str, TextSize] = {}

    @property
    def length(self) -> int:
        """Tokens of a sample."""
        return self.window

    def given(self, split: str) -> bool:
        """Whether there is a source for ``train``, ``valid`` or ``test``."""
        return self.sources[split] is not None

    def check(self, split: str, module: L.LightningModule) -> None:
        """Read a split in the tokens of ``module``.

        Raises:
            ConfigError: no source was given.
            CorpusError: a source cannot be read, or holds less than one window.
        """
        assert isinstance(module.tokenizer, BPETokenizer)
        tokens, size = self._read(self._texts(split), module.tokenizer)
        if len(tokens) < self.length:
            raise CorpusError(
                f"data.{split}: found {len(tokens)} tokens, expected at least one window of {self.length}"
            )
        self._tokens[split], self._sizes[split] = tokens, size

    def tokens(self, split: str) -> NDArray[np.int32]:
        """All tokens of a split; errors as :meth:`check`."""
        if split not in self._tokens:
            assert self.trainer is not None
            self.check(split, self.trainer.lightning_module)
        return self._tokens[split]

    def training_symbols(self, most: int) -> NDArray[np.int32]:
        """The first tokens of the training text, ``most`` at most."""
        return self.tokens("train")[:most]

    def digest(self, split: str) -> str:
        """SHA-256 of the tokens of a split, as int32 in the order of their bytes on this machine."""
        return hashlib.sha256(self.tokens(split).tobytes()).hexdigest()

    def size(self, split: str) -> TextSize:
        """How much text a split holds; errors as :meth:`check`."""
        self.tokens(split)
        return self._sizes[split]

    def _texts(self, split: str) -> Iterator[str]:
        """The documents of a split."""
        sources = self.sources[split]
        if sources is None:
            raise ConfigError(f"data.{split}: missing, expected files or folders of text")
        for path in find_sources(sources):
            for document in iter_documents(path, field=self.field, split_blank_lines=self.split_blank_lines):
                yield document.text

    def _read(self, texts: Iterator[str], tokenizer: BPETokenizer) -> tuple[NDArray[np.int32], TextSize]:
        """The first ``max_tokens`` tokens of the texts, and what they are tokens of."""
        rows, left = [np.empty(0, np.int32)], self.max_tokens
        characters = utf8_bytes = 0
        while left > 0 and (text := next(texts, None)) is not None:
            ids = np.append(tokenizer.bos_id, tokenizer.encode(text))
            if len(ids) > left:
                ids = ids[:left]
                text = tokenizer.decode(ids[1:], errors="replace")
            rows.append(ids.astype(np.int32))
            left -= len(ids)
            characters += len(text)
            utf8_bytes += len(text.encode())
        tokens = np.concatenate(rows)
        return tokens, TextSize(len(tokens), characters, utf8_bytes)

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Random windows of this epoch (the trainer reloads it every epoch)."""
        tokens = self.tokens("train")
        size = self.windows_per_epoch or len(tokens) // self.window
        epoch = self.trainer.current_epoch if self.trainer else 0
        begins = np.random.default_rng([self.seed, epoch]).integers(0, len(tokens) - self.length, size, endpoint=True)
        windows = _Windows(tokens, begins, self.length)
        return EpochLoader(windows, self.batch_size, self.num_workers, epoch, self.trainer)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Consecutive windows of ``valid``."""
        return self._consecutive("valid", self.valid_windows)

    def test_dataloader(self) -> DataLoader[Tensor]:
        """Consecutive windows of ``test``."""
        return self._consecutive("test", None)

    def _consecutive(self, split: str, num: int | None) -> DataLoader[Tensor]:
        tokens = self.tokens(split)
        begins = np.arange(0, len(tokens) - self.length + 1, self.window)
        windows = spread(_Windows(tokens, begins, self.length), num)
        return EvaluationLoader(windows, self.batch_size, self.num_workers, self.trainer)

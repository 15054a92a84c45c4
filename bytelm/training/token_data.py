"""Corpora of bytes as batches of windows of tokens: what the BPE twin of a byte model reads."""

import sys
from collections.abc import Iterator
from pathlib import Path

from bytelm.corpus import Corpus, iter_texts
from bytelm.errors import ConfigError
from bytelm.training.text_data import TextData


class TokenData(TextData):
    """Windows of corpora that ``bytelm corpus build`` wrote, in the tokens of the module that is trained.

    A batch is (B, L + 1) int64: L tokens that the model reads and the one after them. The texts are decoded and cut
    into tokens when training starts, and held in memory, four bytes a token. Each is its tokens after BOS, which is the
    end of the text before it, too.

    Args:
        train, valid, test: corpus folders, as those of :class:`~bytelm.training.CorpusData`.
        window: L, tokens read per sample.
        batch_size: windows per batch and device.
        num_workers: worker processes that cut windows.
        seed: of the random offsets, with the epoch.
        windows_per_epoch: training windows that make an epoch; by default as many as the text is long.
        valid_windows: at most so many validation windows, evenly spread; all by default.
        patch: 1.
    """

    def __init__(
        self,
        train: Path | None = None,
        valid: Path | None = None,
        test: Path | None = None,
        window: int = 512,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        windows_per_epoch: int | None = None,
        valid_windows: int | None = None,
        patch: int = 1,
    ) -> None:
        super().__init__(
            train,
            valid,
            test,
            max_tokens=sys.maxsize,
            window=window,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            windows_per_epoch=windows_per_epoch,
            valid_windows=valid_windows,
        )
        if patch != 1:
            raise ConfigError(f"data.patch: found {patch}, expected 1, for tokens")
        self.patch = patch

    @property
    def length(self) -> int:
        """Tokens of a sample: the window and the one after it."""
        return self.window + 1

    def _texts(self, split: str) -> Iterator[str]:
        folder = self.sources[split]
        if not isinstance(folder, Path):
            raise ConfigError(f"data.{split}: found {folder}, expected a folder that `bytelm corpus build` wrote")
        return iter_texts(Corpus.open(folder))

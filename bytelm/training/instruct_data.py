"""Pairs of prompt and completion as batches in which the bytes of completions alone are targets."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bytelm.corpus import SourceFile, find_sources, iter_documents
from bytelm.errors import ConfigError, CorpusError, EncodingError
from bytelm.tokenizer import Tokenizer
from bytelm.training.batches import LabelledBatch
from bytelm.training.data import check_numbers
from bytelm.training.loader import EpochLoader, EvaluationLoader
from bytelm.training.text_size import TextSize

log = logging.getLogger(__name__)

_SHOWN_TOO_LONG = 5

_Row = tuple[Tensor, Tensor]
"""Bytes, and which are targets."""


@final
@dataclass(frozen=True, slots=True)
class _Pair:
    """Bytes that stand before the completion, BOS among them, and those of the completion with EOS."""

    before: NDArray[np.uint8]
    completion: NDArray[np.uint8]


class _Pairs(Dataset[_Row]):
    """Pairs in an order, each without its first ``starts[i]`` bytes, which are of BOS."""

    def __init__(self, pairs: Sequence[_Pair], order: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        self.pairs, self.order, self.starts = pairs, order, starts

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> _Row:
        pair, start = self.pairs[self.order[index]], int(self.starts[index])
        data = np.concatenate((pair.before, pair.completion))[start:]
        counts = np.arange(len(data)) >= len(pair.before) - start
        return torch.from_numpy(data), torch.from_numpy(counts)


@final
@dataclass(frozen=True, slots=True)
class _Collate:
    """Rows of different lengths as one batch, filled up with PAD, which is no target, to whole patches."""

    patch: int
    pad: int

    def __call__(self, rows: Sequence[_Row]) -> LabelledBatch:
        longest = max(2, -(-max(len(data) for data, _ in rows) // self.patch)) * self.patch
        data = torch.full((len(rows), longest), self.pad, dtype=torch.uint8)
        counts = torch.zeros((len(rows), longest), dtype=torch.bool)
        for row, (some, count) in enumerate(rows):
            data[row, : len(some)], counts[row, : len(some)] = some, count
        return LabelledBatch(data, counts)


class InstructData(L.LightningDataModule):
    """Prompts and completions for fine-tuning, a pair to a row.

    Files are JSON lines with the strings ``prompt`` and ``completion`` (or Parquet with such columns). A row is the BOS
    patch, the prompt, the completion and EOS. Targets are the bytes of the completion and EOS, to the byte, also where
    a patch has bytes of both. For training the patches of a row begin at a random one of its first P bytes, so that all
    phases are learned; else where those of ``generate`` do, whose first new patch begins with the completion.

    A pair that is longer than a window is left out, said so and counted. All bytes are held in memory.

    Args:
        pairs: files and folders for ``fit``.
        valid_pairs: the same for ``fit`` and ``validate``.
        test_pairs: the same for ``test``.
        prompt_field, completion_field: names of the two fields.
        window: L; a row has at most L bytes and a patch after them.
        batch_size: rows per batch and device.
        num_workers: worker processes that put batches together.
        seed: of order and phases, with the epoch.
        patch: P of the model.
    """

    def __init__(
        self,
        pairs: Path | list[Path] | None = None,
        valid_pairs: Path | list[Path] | None = None,
        test_pairs: Path | list[Path] | None = None,
        prompt_field: str = "prompt",
        completion_field: str = "completion",
        window: int = 1024,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        patch: int = 4,
    ) -> None:
        super().__init__()
        check_numbers(patch=(patch, 1), batch_size=(batch_size, 1), num_workers=(num_workers, 0), seed=(seed, 0))
        if window < patch or window % patch:
            raise ConfigError(f"data.window: found {window}, expected a multiple of patch = {patch}")
        self.sources = {"train": pairs, "valid": valid_pairs, "test": test_pairs}
        self.prompt_field, self.completion_field = prompt_field, completion_field
        self.window, self.batch_size, self.num_workers = window, batch_size, num_workers
        self.seed, self.patch = seed, patch
        self.num_too_long: dict[str, int] = {}
        self._pairs: dict[str, list[_Pair]] = {}
        self._sizes: dict[str, TextSize] = {}
        self._pad = 0

    def given(self, split: str) -> bool:
        """Whether there is a source for ``train``, ``valid`` or ``test``."""
        return self.sources[split] is not None

    def check(self, split: str, module: L.LightningModule) -> None:
        """Read a split in the bytes of ``module``.

        Raises:
            ConfigError: no source was given, or the model is one of tokens.
            CorpusError: a source cannot be read; a line that is no pair, or whose text has a control; no pair fits.
        """
        tokenizer = module.tokenizer
        if not isinstance(tokenizer, Tokenizer):
            raise ConfigError("model.tokenizer: found a BPE, expected none: pairs are for models of bytes")
        kept, characters, utf8_bytes, too_long = list[_Pair](), 0, 0, 0
        for path in self._files(split):
            for line, prompt, completion in self._texts(path):
                pair = self._pair(tokenizer, f"{path}:{line}", prompt, completion)
                if (length := len(pair.before) + len(pair.completion)) > self.window + self.patch:
                    too_long += 1
                    self._report(split, f"{path}:{line}", length, too_long)
                    continue
                kept.append(pair)
                characters += len(completion)
                utf8_bytes += len(completion.encode())
        if too_long:
            log.warning("%s: %d of %d pairs are left out", _field(split), too_long, too_long + len(kept))
        if not kept:
            raise CorpusError(
                f"{_field(split)}: found no pair{' that fits' if too_long else ''}, expected at least one of at most"
                f" {self.window + self.patch} bytes"
            )
        self.num_too_long[split] = too_long
        self._pairs[split] = kept
        self._sizes[split] = TextSize(sum(len(pair.completion) for pair in kept), characters, utf8_bytes)
        self._pad = tokenizer.encoding.controls[tokenizer.pad_token][0]

    def _report(self, split: str, place: str, length: int, number: int) -> None:
        if number <= _SHOWN_TOO_LONG:
            log.warning(
                "%s: %s: a pair of %d bytes with BOS and EOS, longer than the %d of data.window and a patch; left out",
                *(_field(split), place, length, self.window + self.patch),
            )

    def _files(self, split: str) -> list[SourceFile]:
        sources = self.sources[split]
        if sources is None:
            raise ConfigError(f"{_field(split)}: missing, expected files or folders of prompts and completions")
        files = find_sources(sources)
        for path in files:
            if path.endings is not None and path.endings[0] == ".txt":
                raise CorpusError(f"{path}: found plain text, expected JSON lines with prompts and completions")
        return files

    def _texts(self, path: SourceFile) -> Iterator[tuple[int, str, str]]:
        """Line, prompt and completion of each pair; a line without both is refused."""
        prompts, completions = (
            iter_documents(path, field=field) for field in (self.prompt_field, self.completion_field)
        )
        for prompt, completion in zip(prompts, completions, strict=True):
            yield prompt.line, prompt.text, completion.text

    def _pair(self, tokenizer: Tokenizer, place: str, prompt: str, completion: str) -> _Pair:
        rows = []
        for field, text in ((self.prompt_field, prompt), (self.completion_field, completion)):
            try:
                rows.append(tokenizer.encode(text))
            except EncodingError as error:
                raise CorpusError(f"{place}: {field}: {error}") from None
        before = np.concatenate((tokenizer.opening(self.patch), rows[0]))
        return _Pair(before, np.concatenate((rows[1], tokenizer.eos)))

    def pairs(self, split: str) -> list[_Pair]:
        """The pairs of a split; errors as :meth:`check`."""
        if split not in self._pairs:
            assert self.trainer is not None
            self.check(split, self.trainer.lightning_module)
        return self._pairs[split]

    def size(self, split: str) -> TextSize:
        """How much text the completions of a split are; errors as :meth:`check`."""
        self.pairs(split)
        return self._sizes[split]

    def digest(self, split: str) -> str:
        """SHA-256 of the pairs of a split, each part with its length before it."""
        parts = (part for pair in self.pairs(split) for part in (pair.before, pair.completion))
        return hashlib.sha256(b"".join(len(p).to_bytes(8, "little") + p.tobytes() for p in parts)).hexdigest()

    def train_dataloader(self) -> DataLoader[Tensor]:
        """The pairs in an order of this epoch (the trainer reloads it every epoch)."""
        pairs, epoch = self.pairs("train"), self.trainer.current_epoch if self.trainer else 0
        drawn = np.random.default_rng([self.seed, epoch])
        rows = _Pairs(pairs, drawn.permutation(len(pairs)), drawn.integers(0, self.patch, len(pairs)))
        return EpochLoader(rows, self.batch_size, self.num_workers, epoch, self.trainer, self._collate)

    def val_dataloader(self) -> DataLoader[Tensor] | list[DataLoader[Tensor]]:
        """The pairs of ``valid_pairs``, in their order; where there are none, no loader, and nothing is measured."""
        return self._in_order("valid") if self.given("valid") else []

    def test_dataloader(self) -> DataLoader[Tensor]:
        """The pairs of ``test_pairs``, in their order."""
        return self._in_order("test")

    def _in_order(self, split: Literal["valid", "test"]) -> DataLoader[Tensor]:
        pairs = self.pairs(split)
        starts = np.array([len(pair.before) % self.patch for pair in pairs])
        rows = _Pairs(pairs, np.arange(len(pairs)), starts)
        return EvaluationLoader(rows, self.batch_size, self.num_workers, self.trainer, self._collate)

    @property
    def _collate(self) -> _Collate:
        return _Collate(self.patch, self._pad)


def _field(split: str) -> str:
    return "data.pairs" if split == "train" else f"data.{split}_pairs"

"""A toy vocabulary in both layouts of files."""

from pathlib import Path

import pytest
from bpe_support import read, split_files, train, write

from bytelm.tokenizer import BPETokenizer


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("bpe") / "toy")


@pytest.fixture(scope="module")
def toy(toy_folder) -> BPETokenizer:
    return BPETokenizer.from_folder(toy_folder)


@pytest.fixture(scope="module")
def files(toy_folder, tmp_path_factory) -> Path:
    """``vocab.json``, ``merges.txt`` and two added tokens, the next ids after the vocabulary's."""
    folder = split_files(toy_folder, tmp_path_factory.mktemp("bpe") / "files")
    size = len(read(folder / "vocab.json"))
    write(folder / "added_tokens.json", {"<|extratoken_1|>": size, "<|extratoken_11|>": size + 1})
    return folder


@pytest.fixture(scope="module")
def added(files) -> BPETokenizer:
    return BPETokenizer.from_folder(files)

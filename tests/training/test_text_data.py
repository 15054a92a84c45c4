import lightning as L
import numpy as np
import pytest
import torch
from toy_tokenizer import with_tokenizer

from bytelm.errors import ConfigError, CorpusError
from bytelm.tokenizer import BPETokenizer
from bytelm.training import TextData

DOCUMENTS = ["a small boat", "two grey herons on the quay", "", "rain since noon"]


class Reader(L.LightningModule):
    """What text data asks of the module that is trained."""

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return Reader(BPETokenizer.from_folder(with_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(DOCUMENTS[:3]), encoding="utf-8")
    (tmp_path / "b.txt").write_text(DOCUMENTS[3], encoding="utf-8")
    return tmp_path


def data_of(reader, source, **options):
    data = TextData(train=source, valid=source, **{"window": 8, "batch_size": 3, "split_blank_lines": True, **options})
    for split in ("train", "valid"):
        data.check(split, reader)
    return data


def test_tokens_are_those_of_the_documents_each_after_bos(reader, folder):
    expected = [t for text in DOCUMENTS if text for t in (256, *reader.tokenizer.encode(text))]
    assert data_of(reader, folder).tokens("train").tolist() == expected
    assert data_of(reader, [folder / "a.txt", folder / "b.txt"]).tokens("train").tolist() == expected
    for most in (8, 13, 14, 40):
        assert data_of(reader, folder, max_tokens=most).tokens("valid").tolist() == expected[:most]


def test_validation_windows_follow_one_another(reader, folder):
    data = data_of(reader, folder)
    tokens = data.tokens("valid")
    batches = list(data.val_dataloader())
    assert {batch.dtype for batch in batches} == {torch.int64}
    windows = torch.cat(batches).numpy()
    assert windows.tolist() == tokens[: len(tokens) // 8 * 8].reshape(-1, 8).tolist()
    some = torch.cat(list(data_of(reader, folder, valid_windows=2).val_dataloader())).numpy()
    assert some.tolist() == windows[[0, -1]].tolist()


def test_training_windows_are_drawn_anew_by_seed_and_reach_every_token(reader, folder):
    def windows(**options):
        return torch.cat(list(data_of(reader, folder, windows_per_epoch=400, **options).train_dataloader())).numpy()

    first = windows()
    assert first.shape == (400, 8)
    assert np.array_equal(first, windows())
    assert not np.array_equal(first, windows(seed=1))
    tokens = data_of(reader, folder).tokens("train")
    every = {tuple(tokens[i : i + 8].tolist()) for i in range(len(tokens) - 7)}
    assert set(map(tuple, first.tolist())) == every


def test_what_is_missing_is_named(reader, folder):
    with pytest.raises(ConfigError, match=r"^data\.train: missing, expected files or folders of text"):
        TextData().check("train", reader)
    with pytest.raises(CorpusError, match=r"^data\.train: found 57 tokens, expected at least one window of 100"):
        data_of(reader, folder, window=100)
    with pytest.raises(ConfigError, match=r"^data\.max_tokens: found 0, expected at least 1"):
        TextData(max_tokens=0)

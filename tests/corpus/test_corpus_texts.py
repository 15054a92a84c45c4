import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.corpus import Corpus, build_corpus, documents, iter_texts
from bytelm.encoding import get_encoding, list_encodings
from bytelm.errors import CorpusError

TEXTS = ["朝の海\n", "", "a <|bos|> is text here, and so is <|eos|>", "🐱" * 50, "", "雨" * 90, "終"]


def write(folder, texts):
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:03}.txt").write_bytes(text.encode())
    return folder


@pytest.mark.parametrize("name", list_encodings())
@pytest.mark.parametrize("block", [3, 1 << 20])
def test_texts_come_back_however_the_stream_is_cut(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(documents, "_BLOCK_BYTES", block)
    build_corpus(write(tmp_path / "texts", filter(None, TEXTS)), get_encoding(name), tmp_path / "corpus")
    found = list(iter_texts(Corpus.open(tmp_path / "corpus")))
    assert found == [text for text in TEXTS if text]  # an empty file is no document


@settings(max_examples=10)
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_any_texts_come_back(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    lines = folder / "texts.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    build_corpus(lines, get_encoding("dense-ja"), folder / "corpus")
    assert list(iter_texts(Corpus.open(folder / "corpus"))) == texts


def test_a_stream_that_is_no_text_is_refused_with_its_offset(tmp_path):
    build_corpus(write(tmp_path / "texts", ["ねこ"]), get_encoding("utf8"), tmp_path / "corpus")
    shard = tmp_path / "corpus" / "shard-00000.bin"
    data = np.fromfile(shard, np.uint8)
    data[5] = 0xFF if data[5] != 0xFF else 0xFE
    data.tofile(shard)
    with pytest.raises(CorpusError, match="byte offset 4"):
        list(iter_texts(Corpus.open(tmp_path / "corpus", verify=False)))

"""Data sets of Hugging Face as sources: folders of this machine, without a network."""

import json
import sys

import pytest
from source_files import TEXTS, documents_in, write_source

from bytelm.corpus import Corpus, build_corpus, find_sources, iter_documents
from bytelm.encoding import get_encoding
from bytelm.errors import CorpusError

UTF8 = get_encoding("utf8")


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    module = pytest.importorskip("datasets")
    monkeypatch.setattr(module.config, "HF_CACHE_HOME", str(tmp_path / "cache"))
    module.disable_progress_bars()
    return module


@pytest.fixture
def folder(tmp_path, datasets):
    """A data set of two files for training, and one to test."""
    folder = tmp_path / "some_set"
    folder.mkdir()
    for name, start in (("train-0", 0), ("train-1", 5), ("test-0", 9)):
        write_source(folder / f"{name}.jsonl", [f"{start + i}{text}" for i, text in enumerate(TEXTS)])
    return folder


def texts_of(numbers):
    return [f"{number}{TEXTS[i % len(TEXTS)]}" for i, number in enumerate(numbers)]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_data_set_is_read_shard_by_shard(folder, tmp_path, workers):
    url = f"dataset://{folder}?split=train"
    sources = find_sources(url)
    assert [source.name for source in sources] == [f"{url}&shard=0/2", f"{url}&shard=1/2"]
    manifest = build_corpus(url, UTF8, tmp_path / "out", workers=workers, deduplicate=True)
    corpus = Corpus.open(tmp_path / "out")
    stream = corpus.read(0, corpus.num_bytes).tobytes()
    assert documents_in(UTF8, stream) == texts_of(range(10))
    assert [(source.path, source.documents) for source in manifest.sources] == [(s.name, 5) for s in sources]
    assert len(manifest.shards) == 2


def test_rows_are_documents(folder):
    (source,) = find_sources(f"dataset://{folder}?split=test")
    documents = list(iter_documents(source))
    assert [(document.text, document.line) for document in documents] == [
        (text, row) for row, text in enumerate(texts_of(range(9, 14)), 1)
    ]


def test_a_file_that_changes_is_another_version(folder):
    url = f"dataset://{folder}"
    before = find_sources(url)
    assert find_sources(url) == before
    write_source(folder / "train-1.jsonl", ["ほかの文書。"])
    after = find_sources(url)
    assert [source.name for source in after] == [source.name for source in before]
    assert after != before


def test_bad_rows_are_counted(datasets, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    rows = [{"text": "一"}, {"text": None}, {"text": "二"}]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    url = f"dataset://{folder}"
    with pytest.raises(CorpusError, match=r"shard=0/1:2: found null as 'text', expected a string \(counted in rows"):
        build_corpus(url, UTF8, tmp_path / "out")
    manifest = build_corpus(url, UTF8, tmp_path / "out", skip_bad_lines=True)
    assert (manifest.documents, manifest.num_bad_lines) == (2, 1)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?split=dev", "dev"),
        ("?config=other", "other"),
        ("?field=text", "found .*field.*, expected dataset://NAME"),
        ("?split", "expected dataset://NAME"),
        ("?shard=0/2", "found a shard, expected dataset://NAME"),
        ("?shard=a/2", "expected dataset://NAME"),
    ],
)
def test_addresses_that_are_wrong(folder, tmp_path, query, message):
    with pytest.raises(CorpusError, match=message) as error:
        build_corpus(f"dataset://{folder}{query}", UTF8, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"dataset://{folder}")


def test_names_that_lead_nowhere(datasets, tmp_path, monkeypatch):
    for name in ("nobody/nothing", f"{tmp_path}/nowhere"):
        with pytest.raises(CorpusError, match=f"^dataset://{name}: ") as error:
            build_corpus(f"dataset://{name}", UTF8, tmp_path / "out")
        assert "\n" not in str(error.value)
    with pytest.raises(CorpusError, match="found no name, expected dataset://NAME"):
        build_corpus("dataset://?split=train", UTF8, tmp_path / "out")


def test_a_column_that_is_not_there(folder, tmp_path):
    with pytest.raises(CorpusError, match="found the columns 'id', 'text', expected a string column 'body'"):
        build_corpus(f"dataset://{folder}", UTF8, tmp_path / "out", field="body")


def test_the_package_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match=r"^dataset://a/b: .*datasets.*; `pip install 'bytelm\[datasets\]'` installs"):
        build_corpus("dataset://a/b", UTF8, tmp_path / "out")

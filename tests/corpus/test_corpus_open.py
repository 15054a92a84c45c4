import json
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import write_source

from bytelm.corpus import Corpus, Manifest, build_corpus, corpus
from bytelm.encoding import DenseEncoding, get_encoding
from bytelm.errors import CorpusError

UTF8 = get_encoding("utf8")


@pytest.fixture
def folder(tmp_path):
    build_corpus(write_source(tmp_path / "x.txt", ["春はあけぼの色。" * 20]), UTF8, tmp_path / "out", shard_bytes=100)
    return tmp_path / "out"


def concatenation(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("shard-*.bin")))


@settings(deadline=None, max_examples=10)
@given(st.integers(8, 40), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1))
def test_reads_equal_slices_of_the_concatenation(shard_bytes, ranges):
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "_MAX_OPEN", 2)
        path, out = write_source(Path(name) / "x.txt", ["0123456789" * 10]), Path(name) / "out"
        build_corpus(path, UTF8, out, shard_bytes=shard_bytes)
        opened = Corpus.open(out)
        assert opened.num_bytes == len(concatenation(out))
        for start, length in ranges:
            stop = min(start + length, opened.num_bytes)
            data = opened.read(start, stop)
            assert data.tobytes() == concatenation(out)[start:stop]
            assert data.flags.writeable


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 10_000)])
def test_reads_outside_are_refused(folder, start, stop):
    with pytest.raises(IndexError, match=f"found the range {start} to {stop}, expected one within 0 to 485"):
        Corpus.open(folder).read(start, stop)


def test_a_pickled_corpus_opens_the_shards_itself(folder):
    original = Corpus.open(folder)
    assert original.num_bytes == 485
    data = pickle.dumps(original)
    assert len(data) < 10_000
    copy = pickle.loads(data)
    assert (copy.manifest, copy.encoding) == (original.manifest, original.encoding)
    assert copy.read(50, 350).tobytes() == concatenation(folder)[50:350]


# What is refused


def test_a_truncated_shard(folder):
    shard = folder / "shard-00001.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    for verify in (True, False):
        with pytest.raises(CorpusError, match=r"shard-00001\.bin: found 99 bytes, expected 100"):
            Corpus.open(folder, verify=verify)


def test_a_shard_that_grew(folder):
    with (folder / "shard-00004.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CorpusError, match=r"shard-00004\.bin: found 86 bytes, expected 85"):
        Corpus.open(folder)


def test_a_flipped_bit(folder):
    shard = folder / "shard-00002.bin"
    data = bytearray(shard.read_bytes())
    data[37] ^= 1
    shard.write_bytes(data)
    expected = Manifest.load(folder).shards[2].sha256
    with pytest.raises(CorpusError, match=rf"shard-00002\.bin: altered: found SHA-256 \w+, expected {expected}"):
        Corpus.open(folder)
    unchecked = Corpus.open(folder, verify=False)
    with pytest.raises(CorpusError, match="altered"):
        unchecked.verify()


def test_a_missing_shard(folder):
    (folder / "shard-00003.bin").unlink()
    with pytest.raises(CorpusError, match=r"shard-00003\.bin: No such file .*expected a shard of 100 bytes"):
        Corpus.open(folder)


def test_a_corpus_of_another_encoding(folder):
    with pytest.raises(CorpusError, match=r"found a corpus of encoding 'utf8' \(digest \w{12}\), expected 'utf16' \("):
        Corpus.open(folder, get_encoding("utf16"))
    assert Corpus.open(folder, UTF8).encoding is UTF8


def test_a_corpus_of_another_table_with_the_same_name(tmp_path):
    mine, other = (DenseEncoding("mine", 231, 17, ranked) for ranked in ("のに", "にの"))
    build_corpus(write_source(tmp_path / "x.txt", ["の"]), mine, tmp_path / "out")
    assert Corpus.open(tmp_path / "out").encoding == mine
    with pytest.raises(CorpusError, match="found a corpus of encoding 'mine'"):
        Corpus.open(tmp_path / "out", other)


def edit(folder: Path, **fields: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format_version": 2}, "found format_version 2, expected 1"),
        ({"format_version": None}, "found format_version None"),
        ({"characters": "many"}, "characters: found 'many', expected int"),
        ({"surprise": 1}, "surprise: unknown field"),
        ({"bytes": 480}, "bytes: found 480"),
        ({"documents": 2}, "documents: found 2"),
        ({"shards": [{"file": "../x", "bytes": 485, "sha256": "0" * 64}]}, r"shards\[0\]\.file: found '\.\./x'"),
        ({"encoding_table": []}, r"encoding_table: found \[\], expected an object"),
        ({"encoding_table": {}}, "encoding_table: .*found format_version None"),
        ({"encoding_digest": "0" * 64}, r"digest 000000000000\), expected 'utf8'"),
    ],
)
def test_a_manifest_that_is_wrong(folder, fields, message):
    edit(folder, **fields)
    with pytest.raises(CorpusError, match=rf"manifest\.json: .*{message}"):
        Corpus.open(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_manifest_that_is_no_manifest(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(CorpusError, match=r"manifest\.json: found"):
        Corpus.open(folder)


def test_no_corpus_at_all(tmp_path):
    with pytest.raises(CorpusError, match=r"manifest\.json: no such file, expected the manifest of a finished corpus"):
        Corpus.open(tmp_path / "nowhere")


def test_the_manifest_survives_json(folder):
    manifest = Manifest.load(folder)
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest
    assert manifest.bytes_per_character == 485 / 160

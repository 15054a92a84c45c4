"""Corpora and sources of strangers: names that lead out, links, bombs, and file systems that run what they read."""

import gzip
import io
import json
import lzma
import tracemalloc
import zlib

import pytest
import zstandard
from source_files import TEXTS, write_source

from bytelm.corpus import Corpus, build_corpus, compression
from bytelm.corpus.compression import open_stream
from bytelm.corpus.files import find_sources
from bytelm.corpus.manifest import MANIFEST_FILE
from bytelm.corpus.readers import iter_documents
from bytelm.encoding import get_encoding
from bytelm.errors import CorpusError


@pytest.fixture
def corpus(tmp_path):
    """The folder of a corpus."""
    source = write_source(tmp_path / "texts.jsonl", TEXTS)
    build_corpus([source], get_encoding("utf8"), tmp_path / "corpus", workers=0)
    return tmp_path / "corpus"


def rename_shard(folder, name):
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["shards"][0]["file"] = name
    path.write_text(json.dumps(manifest), encoding="utf-8")


def refused(action, *parts):
    with pytest.raises(CorpusError) as caught:
        action()
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../x.bin", "/etc/passwd", "..", ".", "", "a/b.bin", "a\\b.bin", "C:x.bin", "a\0b", "./shard-00000.bin"]
)
def test_shards_outside_of_the_folder(corpus, name):
    rename_shard(corpus, name)
    refused(lambda: Corpus.open(corpus), MANIFEST_FILE, "shards[0].file", "expected a file name without a folder")


def test_a_shard_that_is_a_link(corpus, tmp_path):
    """One that leads out is refused, even to the very bytes; one that stays is a file like others."""
    shard = corpus / "shard-00000.bin"
    outside = tmp_path / "elsewhere.bin"
    shard.rename(outside)
    shard.symlink_to(outside)
    refused(lambda: Corpus.open(corpus), "shard-00000.bin: found a link that leads out of the folder")
    shard.unlink()
    outside.rename(corpus / "other.bin")
    shard.symlink_to("other.bin")
    Corpus.open(corpus)
    shard.unlink()
    shard.symlink_to("shard-00000.bin")  # to itself
    refused(lambda: Corpus.open(corpus), "shard-00000.bin")


def test_a_folder_that_is_a_link(corpus, tmp_path):
    """A corpus on another disk."""
    (tmp_path / "link").symlink_to(corpus, target_is_directory=True)
    Corpus.open(tmp_path / "link")


def read(data, ending):
    with open_stream(io.BufferedReader(io.BytesIO(data)), ending) as stream:
        while stream.read(1 << 20):
            pass


PACK = {".gz": lambda data: gzip.compress(data, 9), ".xz": lzma.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("ending", PACK)
def test_what_expands_too_far_is_a_bomb(ending, monkeypatch):
    monkeypatch.setattr(compression, "_CHECKED_FROM_BYTES", 1 << 22)
    bomb = PACK[ending](bytes(1 << 24))
    with pytest.raises(EOFError, match=r"\d+ bytes of it expand to more than \d+"):
        read(bomb, ending)


@pytest.mark.parametrize("ending", PACK)
def test_what_repeats_but_is_small_is_read(ending):
    read(PACK[ending](bytes(1 << 24)), ending)


def test_a_bomb_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "_CHECKED_FROM_BYTES", 1 << 22)
    path = tmp_path / "bomb.txt.zst"
    path.write_bytes(zstandard.compress(b"a" * (1 << 24)))
    refused(lambda: list(iter_documents(path)), str(path), "expand to more than")


@pytest.mark.parametrize(("ending", "size"), [(".gz", 48 << 20), (".xz", 48 << 20), (".zst", 160 << 20)])
def test_bombs_are_not_held_in_memory(ending, size):
    bomb = PACK[ending](bytes(size))
    tracemalloc.start()
    try:
        read(bomb, ending)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def with_dictionary(data, size):
    """An .xz file of one block whose header asks for another dictionary (section 5.3.1 of the format's description)."""
    header = bytearray(data[12:20])
    assert header[:4] == b"\x02\x00\x21\x01"  # 12 bytes, one filter, LZMA2, one byte of properties
    header[4] = size
    return data[:12] + bytes(header) + zlib.crc32(header).to_bytes(4, "little") + data[24:]


def test_xz_that_asks_for_much_memory():
    """A dictionary of 4 GiB for a few bytes; `xz` writes 64 MiB at most unless it is told to."""
    data = lzma.compress(b"a few bytes", preset=9)
    read(data, ".xz")
    for size, ok in ((data[16], True), (30, True), (40, False)):  # 30: 128 MiB
        if ok:
            read(with_dictionary(data, size), ".xz")
        else:
            lzma.decompress(with_dictionary(data, size))  # which is why there is a limit
            with pytest.raises(lzma.LZMAError, match=r"(?i)memory"):
                read(with_dictionary(data, size), ".xz")


def test_several_xz_streams_with_padding_between_them():
    data = lzma.compress(b"first ") + bytes(8) + lzma.compress(b"second")
    for given in (data, data + bytes(4)):
        with open_stream(io.BufferedReader(io.BytesIO(given)), ".xz") as stream:
            assert stream.read() == b"first second"
    with pytest.raises(EOFError):
        read(data[:-1], ".xz")
    with pytest.raises(lzma.LZMAError):
        read(data + b"more than nothing", ".xz")


@pytest.mark.parametrize("url", ["reference://a.jsonl::/etc/refs.json", "simplecache::reference://a.jsonl"])
def test_file_systems_that_render_templates(url):
    refused(lambda: find_sources(url), url, "reference")


def test_scripts_of_data_sets_are_not_run(tmp_path):
    pytest.importorskip("datasets")
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'made')!r})")
    for name in (folder, folder / "evil.py"):
        refused(lambda name=name: find_sources(f"dataset://{name}?split=train"), str(name))
    assert not (tmp_path / "made").exists()

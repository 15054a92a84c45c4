"""Sources behind file systems of fsspec: in memory, in archives and on a web server of this machine."""

import functools
import http.server
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from source_files import ENDINGS, TEXTS, json_line, write_lines, write_source

from bytelm.corpus import Corpus, GroupSource, build_corpus, count_groups, find_sources, iter_documents
from bytelm.encoding import get_encoding
from bytelm.errors import CorpusError

fsspec = pytest.importorskip("fsspec")
UTF8 = get_encoding("utf8")


@pytest.fixture
def memory():
    """Puts files into fsspec's memory file system."""
    system = fsspec.filesystem("memory")
    yield lambda name, data: system.pipe_file(name, data)
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def folder(tmp_path):
    """One file of every format and compression, and one of no known format."""
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    for number, ending in enumerate(ENDINGS):
        texts = TEXTS[:1] if ".txt" in ending else [f"{number}{text}" for text in TEXTS]
        write_source(folder / ("below" if number % 2 else "") / f"f{ending}", texts)
    (folder / "README.md").write_text("nothing to read")
    return folder


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and parts of its files where they are asked for."""

    def do_GET(self):
        asked = self.headers.get("Range")
        if not asked:
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *arguments):
        pass


class Broken(Ranges):
    """Knows its files and cannot read them."""

    def do_GET(self):
        self.send_error(500, "out of order")


@pytest.fixture
def serve():
    """Starts web servers on this machine; the URL of each."""
    servers = []

    def start(handler, directory):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(directory)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def stream_of(sources, out, **options):
    build_corpus(sources, UTF8, out, **options)
    corpus = Corpus.open(out)
    return corpus.read(0, corpus.num_bytes).tobytes()


@pytest.fixture
def local(folder, tmp_path):
    return stream_of(folder, tmp_path / "local")


def test_a_folder_in_memory(folder, memory, local, tmp_path):
    for path in folder.rglob("*.*"):
        memory(f"/data/{path.relative_to(folder)}", path.read_bytes())
    assert stream_of("memory://data", tmp_path / "out") == local
    manifest = Corpus.open(tmp_path / "out").manifest
    assert manifest.sources[0].path == "memory:///data/below/f.jsonl.gz"
    some = find_sources("memory://data/below/*.jsonl*")
    assert [source.name for source in some] == ["memory:///data/below/f.jsonl.gz", "memory:///data/below/f.jsonl.zst"]
    assert some[0].bytes == (folder / "below" / "f.jsonl.gz").stat().st_size
    documents = [document.text for document in iter_documents("memory://data/below/f.jsonl.gz")]
    assert documents == [f"1{text}" for text in TEXTS]


@pytest.mark.parametrize("workers", [0, 1])
def test_files_by_url(folder, local, tmp_path, workers):
    assert stream_of(f"file://{folder}", tmp_path / "out", workers=workers, shard_bytes=200) == local


def test_an_archive(folder, local, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    url = f"zip://::{tmp_path / 'x.zip'}"
    assert [source.name for source in find_sources(url)][-1] == f"zip://f.txt.xz::{tmp_path / 'x.zip'}"
    assert stream_of(url, tmp_path / "out", shard_bytes=200) == local


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".txt.zst", ".parquet", ".parquet.xz"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_web_server(folder, serve, tmp_path, ending, ranges):
    pytest.importorskip("aiohttp")
    url = serve(Ranges if ranges else http.server.SimpleHTTPRequestHandler, folder)
    path = next(folder.rglob(f"f{ending}"))
    address = f"{url}/{path.relative_to(folder)}"
    assert stream_of(address, tmp_path / "out") == stream_of(path, tmp_path / "one")
    assert Corpus.open(tmp_path / "out").manifest.sources[0].path == address


def test_counting_reads_urls(memory):
    memory("/x.jsonl", json_line("一二") + b"\n")
    memory("/y.txt", "三".encode())
    sources = [GroupSource.parse(text) for text in ("memory://x.jsonl", "kanji=memory://y.txt@train")]
    assert sources[1] == GroupSource("memory://y.txt", "kanji", "train")
    groups = count_groups(sources)
    assert {group.name: group.characters for group in groups}.items() <= {"x": 2, "kanji": 1}.items()


def test_bad_lines_are_named_by_url(memory, tmp_path):
    memory("/x.jsonl", json_line("一") + b"\n{\n")
    with pytest.raises(CorpusError, match=r"memory:///?x\.jsonl:2: found no JSON"):
        build_corpus("memory://x.jsonl", UTF8, tmp_path / "out")
    manifest = build_corpus("memory://x.jsonl", UTF8, tmp_path / "out", skip_bad_lines=True)
    assert [bad.line for bad in manifest.bad_lines] == [2]


def test_damage_is_seen_through_a_url(memory, tmp_path):
    data = write_lines(tmp_path / "x.jsonl.gz", [json_line("一")] * 50).read_bytes()
    memory("/x.jsonl.gz", data[:-9])
    with pytest.raises(CorpusError, match=r"memory://.*x\.jsonl\.gz: found a truncated or altered compressed file"):
        build_corpus("memory://x.jsonl.gz", UTF8, tmp_path / "out")


# What cannot be read: one line each


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("s3://bucket/x.jsonl", "s3fs"),
        ("gs://bucket/x.jsonl", "gcsfs"),
        ("hf://datasets/a/b/x.jsonl", "huggingface_hub"),
    ],
)
def test_a_package_that_is_missing(url, package, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, url.partition(":")[0], raising=False)
    with pytest.raises(CorpusError) as error:
        build_corpus(url, UTF8, tmp_path / "out")
    message = str(error.value)
    assert message.startswith(f"{url}: ")
    assert package in message
    assert "`pip install 'bytelm[remote]'` installs it" in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nowhere.jsonl", r"memory://nowhere\.jsonl: no such file or folder"),
        ("memory://nowhere", r"memory://nowhere: no such file or folder"),
        ("memory://x.csv", r"memory://x\.csv: found the ending '\.csv', expected \.jsonl"),
        ("memory://empty", "memory://empty: found no file to read in this folder"),
        ("memory://*.txt", r"memory://\*\.txt: found no file to read"),
        ("nosuch://x.jsonl", "nosuch://x.jsonl: .*nosuch"),
    ],
)
def test_urls_that_lead_nowhere(memory, tmp_path, url, message):
    memory("/x.csv", b"a")
    memory("/empty/x.csv", b"a")
    with pytest.raises(CorpusError, match=message) as error:
        build_corpus(url, UTF8, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_server_that_fails(serve, tmp_path):
    pytest.importorskip("aiohttp")
    url = serve(Broken, tmp_path)
    (tmp_path / "x.jsonl").write_bytes(json_line("一"))
    with pytest.raises(CorpusError, match=rf"{url}/x\.jsonl: .*500") as error:
        build_corpus(f"{url}/x.jsonl", UTF8, tmp_path / "out")
    assert "\n" not in str(error.value)

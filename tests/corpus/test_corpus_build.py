import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import ENDINGS, TEXTS, documents_in, json_line, stored_stream, texts, write_lines, write_source

from bytelm.corpus import Corpus, Manifest, batches, build, build_corpus, part
from bytelm.encoding import Encoding, get_encoding
from bytelm.errors import CorpusError

ENCODINGS = ["utf8", "utf16", "utf32", "ranked2", "dense-ja"]


def stream_of(folder: Path, encoding: Encoding | None = None) -> bytes:
    corpus = Corpus.open(folder, encoding)
    return corpus.read(0, corpus.num_bytes).tobytes()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("name", ENCODINGS)
@settings(deadline=None, max_examples=40)
@given(documents=st.lists(texts, min_size=1), batch_characters=st.integers(1, 20), shard_bytes=st.integers(20, 60))
def test_documents_come_back(name, documents, batch_characters, shard_bytes):
    encoding = get_encoding(name)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_CHARACTERS", batch_characters)
        path = write_lines(Path(folder) / "x.jsonl", [json_line(text) for text in documents])
        manifest = build_corpus(path, encoding, Path(folder) / "out", shard_bytes=shard_bytes)
        stream = stream_of(Path(folder) / "out", encoding)
    assert documents_in(encoding, stream) == documents
    assert stream == stored_stream(encoding, documents)
    assert manifest.documents == len(documents)
    assert manifest.characters == sum(map(len, documents))
    assert manifest.utf8_bytes == sum(len(text.encode()) for text in documents)
    assert manifest.bytes == len(stream)
    assert {shard.bytes for shard in manifest.shards[:-1]} <= {shard_bytes}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ENCODINGS)
def test_every_format_and_encoding(tmp_path, name, ending):
    encoding = get_encoding(name)
    documents = ["".join(TEXTS)] if ".txt" in ending else TEXTS
    path = write_source(tmp_path / f"x{ending}", documents)
    manifest = build_corpus([path], encoding, tmp_path / "out")
    assert documents_in(encoding, stream_of(tmp_path / "out")) == documents
    assert [(s.path, s.documents, s.bad_lines) for s in manifest.sources] == [(str(path), len(documents), 0)]


def test_the_number_of_workers_does_not_show(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "BATCH_CHARACTERS", 50)
    (tmp_path / "in").mkdir()
    for number, ending in enumerate([".jsonl.zst", ".parquet", ".txt.xz"]):
        documents = ["長い一つの文書。\n" * 40] if ".txt" in ending else [f"{t}{i}" for i in range(20) for t in TEXTS]
        write_source(tmp_path / "in" / f"{number}{ending}", documents)
    contents = []
    for workers in (0, 1, 3):
        out = tmp_path / f"out{workers}"
        build_corpus(tmp_path / "in", get_encoding("dense-ja"), out, workers=workers, shard_bytes=1000)
        contents.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert len(contents[0]) > 4
    assert contents[0] == contents[1] == contents[2]


def test_progress_reaches_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "BATCH_CHARACTERS", 500)
    sources = [write_source(tmp_path / f"x{ending}", TEXTS * 50) for ending in (".jsonl", ".parquet.gz", ".jsonl.gz")]
    seen: list[build.BuildProgress] = []
    manifest = build_corpus(sources, get_encoding("utf8"), tmp_path / "out", progress=seen.append)
    positions = [progress.source_bytes for progress in seen]
    assert positions == sorted(positions)
    assert len(set(positions)) > 3
    assert positions[-1] == seen[0].total_source_bytes == sum(path.stat().st_size for path in sources)
    last = seen[-1]
    assert (last.documents, last.characters, last.bytes) == (manifest.documents, manifest.characters, manifest.bytes)
    assert (seen[0].source, last.source) == (str(sources[0]), str(sources[2]))


# Bad input


def test_a_bad_line_stops_the_build(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [json_line("一"), b"{", json_line("二")])
    with pytest.raises(CorpusError, match=r"x\.jsonl:2: found no JSON"):
        build_corpus(path, get_encoding("utf8"), tmp_path / "out")
    assert names_in(tmp_path / "out") == []


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_lines_are_skipped_and_listed(tmp_path, workers):
    first = write_lines(tmp_path / "x.jsonl", [b"{", json_line("一"), b'{"text": 1}'])
    second = write_lines(tmp_path / "y.txt", ["二".encode(), b"\xff"])
    encoding = get_encoding("dense-ja")
    manifest = build_corpus([first, second], encoding, tmp_path / "out", skip_bad_lines=True, workers=workers)
    assert [(bad.file, bad.line, bad.reason[:10]) for bad in manifest.bad_lines] == [
        (str(first), 1, "found no J"),
        (str(first), 3, "found a nu"),
        (str(second), 2, "found the "),
    ]
    assert [source.bad_lines for source in manifest.sources] == [2, 1]
    assert manifest.num_bad_lines == 3
    assert Manifest.load(tmp_path / "out") == manifest
    assert documents_in(encoding, stream_of(tmp_path / "out")) == ["一", "二\n"]


def test_the_list_of_bad_lines_ends_somewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(part, "MAX_LISTED_BAD_LINES", 5)
    path = write_lines(tmp_path / "x.jsonl", [json_line("一")] + [b"{"] * 20)
    manifest = build_corpus(path, get_encoding("utf8"), tmp_path / "out", skip_bad_lines=True)
    assert len(manifest.bad_lines) == 5
    assert manifest.num_bad_lines == 20


def test_no_document_is_an_error(tmp_path):
    for name, content in (("x.jsonl", b"\n\n"), ("x.txt", b""), ("y.jsonl", b"{\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorpusError, match=rf"{name}.*: found no document"):
            build_corpus([tmp_path / name], get_encoding("utf8"), tmp_path / "out", skip_bad_lines=True)
    assert names_in(tmp_path / "out") == []


def test_arguments_are_checked(tmp_path):
    path = write_source(tmp_path / "x.txt", ["一"])
    encoding = get_encoding("utf8")
    with pytest.raises(CorpusError, match="workers: found -1"):
        build_corpus(path, encoding, tmp_path / "out", workers=-1)
    with pytest.raises(CorpusError, match="shard_bytes: found 0"):
        build_corpus(path, encoding, tmp_path / "out", shard_bytes=0)
    with pytest.raises(CorpusError, match=r"x\.txt: found a file, expected a folder"):
        build_corpus(path, encoding, path)
    with pytest.raises(CorpusError, match="nowhere: no such file"):
        build_corpus(tmp_path / "nowhere", encoding, tmp_path / "out")


def test_a_corpus_is_replaced_only_on_demand_and_only_by_text(tmp_path):
    good = write_source(tmp_path / "x.txt", ["一" * 100])
    bad = write_lines(tmp_path / "y.jsonl", [b"{"])
    encoding, out = get_encoding("utf8"), tmp_path / "out"
    build_corpus(good, encoding, out, shard_bytes=100)
    (out / "notes.md").touch()
    before = stream_of(out)
    with pytest.raises(CorpusError, match=r"out: found manifest\.json of an earlier build"):
        build_corpus(good, encoding, out)
    for missing in (bad, tmp_path / "nowhere"):
        with pytest.raises(CorpusError):
            build_corpus(missing, encoding, out, overwrite=True)
    assert stream_of(out) == before
    build_corpus(write_source(tmp_path / "z.txt", ["二"]), encoding, out, overwrite=True)
    assert names_in(out) == ["manifest.json", "notes.md", "shard-00000.bin"]
    assert documents_in(encoding, stream_of(out)) == ["二"]
    (out / "manifest.json").unlink()
    with pytest.raises(CorpusError, match=r"found shard-00000\.bin of an earlier build"):
        build_corpus(good, encoding, out)


# What goes wrong while writing

FULL_DISK = """
import resource, signal, sys
from bytelm.corpus import build_corpus
from bytelm.encoding import get_encoding
from bytelm.errors import CorpusError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def fill(progress):
    if progress.bytes > 2500:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))

try:
    build_corpus(sys.argv[1], get_encoding("utf8"), sys.argv[2], shard_bytes=1000, progress=fill)
except CorpusError as error:
    sys.exit(str(error))
"""


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)


def write_many(folder: Path) -> Path:
    """More than one batch, so that the system can refuse the second one."""
    return write_lines(folder / "x.jsonl", [json_line("a" * 995)] * 1000)


def test_a_system_that_refuses_to_write_leaves_finished_parts(tmp_path):
    (tmp_path / "in").mkdir()
    write_source(tmp_path / "in" / "a.jsonl", ["first"] * 100)
    write_many(tmp_path / "in")
    done = run_script(FULL_DISK, tmp_path / "in", tmp_path / "out")
    assert done.returncode == 1
    assert ".bin: File too large after 700 bytes of this shard, which was removed; finished parts" in done.stderr
    assert f"stay in {tmp_path / 'out' / 'unfinished'}, and the same command goes on with them" in done.stderr
    names = ["lock", "part-00000.all.00000.bin", "part-00000.json", "plan.json"]
    assert names_in(tmp_path / "out" / "unfinished") == names
    with pytest.raises(CorpusError, match=r"manifest\.json: no such file, expected the manifest of a finished corpus"):
        Corpus.open(tmp_path / "out")
    build_corpus(tmp_path / "in", get_encoding("utf8"), tmp_path / "out", shard_bytes=1000)
    assert Corpus.open(tmp_path / "out").manifest.documents == 1100


def test_a_full_disk_when_closing(tmp_path, monkeypatch):
    calls = []

    def refuse(descriptor):
        calls.append(descriptor)
        if len(calls) > 1:  # the first is of the plan
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("bytelm.corpus.shards.os.fsync", refuse)
    with pytest.raises(CorpusError, match=r"part-00000\.all\.00000\.bin: No space left on device after 6 bytes"):
        build_corpus(write_source(tmp_path / "x.txt", ["a"]), get_encoding("utf8"), tmp_path / "out")
    assert names_in(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("name", ["plan.json", "part-00000.json", "manifest.json"])
def test_a_record_that_cannot_be_written(tmp_path, monkeypatch, name):
    def refuse(self, target):
        if self.name.startswith(name):
            raise OSError(28, "No space left on device")
        return self.rename(target)

    source = write_source(tmp_path / "x.txt", ["a"])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(CorpusError, match=rf"{name}: No space left on device"):
            build_corpus(source, get_encoding("utf8"), tmp_path / "out")
    assert (tmp_path / "out").exists() == (name == "manifest.json")
    build_corpus(source, get_encoding("utf8"), tmp_path / "out")
    assert names_in(tmp_path / "out") == ["manifest.json", "shard-00000.bin"]


@pytest.fixture
def _interruptible():
    """SIGINT raises KeyboardInterrupt, also where a shell started the tests in the background, with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupt_leaves_finished_parts(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(batches, "BATCH_CHARACTERS", 1000)

    def interrupt(progress):
        if progress.bytes > 2500:
            assert any(name.endswith(".partial") for name in names_in(tmp_path / "out" / "unfinished"))
            signal.raise_signal(signal.SIGINT)

    write_source(tmp_path / "a.jsonl", ["first"] * 100)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(
            [tmp_path / "a.jsonl", write_many(tmp_path)], get_encoding("utf8"), tmp_path / "out",
            shard_bytes=1500, workers=workers, progress=interrupt,
        )  # fmt: skip
    names = ["lock", "part-00000.all.00000.bin", "part-00000.json", "plan.json"]
    assert names_in(tmp_path / "out" / "unfinished") == names


UNGUARDED = """
import sys
from bytelm.corpus import build_corpus
from bytelm.encoding import get_encoding
from bytelm.errors import CorpusError

try:
    build_corpus(sys.argv[1], get_encoding("utf8"), sys.argv[2], workers=1)
except CorpusError as error:
    sys.exit(str(error))
"""


def test_a_worker_that_dies_is_an_error(tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    write_source(tmp_path / "x.txt", ["a"])
    command = [sys.executable, tmp_path / "script.py", tmp_path / "x.txt", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(Path.cwd())}, timeout=60)
    assert done.returncode == 1
    assert "a worker process ended before its work was done" in done.stderr.splitlines()[-1]


# Memory

PEAK = """
import sys
from pathlib import Path
from bytelm.corpus import build_corpus
from bytelm.encoding import get_encoding

encoding = get_encoding("dense-ja")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building the tables
build_corpus(sys.argv[1], encoding, sys.argv[2])
# ru_maxrss would include the peak of the process that started this one
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def write_large(folder: Path, ending: str, num_bytes: int) -> Path:
    path = folder / f"x{num_bytes}{ending}"
    line = "".join(f"{i}行目に書いてある文。" for i in range(40))
    count = num_bytes // len(line.encode())
    if ending == ".parquet":
        rows = pa.table({"text": [f"{i}{line}" for i in range(count)]})
        pq.write_table(rows, path, row_group_size=count, use_dictionary=False)
        return path
    end = "\n" if ending == ".jsonl" else ""
    content = json.dumps({"text": line}, ensure_ascii=False) if ending == ".jsonl" else line
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(content + end)
    return path


def peak_megabytes(folder: Path, ending: str, num_bytes: int) -> float:
    out = folder / f"out{num_bytes}{ending}"
    done = run_script(PEAK, write_large(folder, ending, num_bytes), out)
    assert done.returncode == 0, done.stderr
    assert Manifest.load(out).utf8_bytes > 0.8 * num_bytes
    return int(done.stdout) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak of memory from Linux's /proc")
@pytest.mark.parametrize(("ending", "slack_megabytes"), [(".jsonl", 12), (".txt", 12), (".parquet", 40)])
@pytest.mark.parametrize(
    "num_bytes", [pytest.param(30_000_000, id="30MB"), pytest.param(200_000_000, id="200MB", marks=pytest.mark.slow)]
)
def test_memory_stays_flat(tmp_path, ending, slack_megabytes, num_bytes):
    small = peak_megabytes(tmp_path, ending, 3_000_000)
    assert peak_megabytes(tmp_path, ending, num_bytes) < small + slack_megabytes

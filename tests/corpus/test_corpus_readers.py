import gzip
import tempfile
import tracemalloc
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from source_files import ENDINGS, TEXTS, compress, json_line, texts, write_lines, write_source

from bytelm.corpus import BadLine, Document, iter_documents, readers
from bytelm.corpus.compression import open_stream
from bytelm.corpus.files import find_sources
from bytelm.errors import CorpusError


def read(path, **options):
    return [document.text for document in iter_documents(path, **options)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_and_compression_is_read(tmp_path, ending):
    documents = ["".join(TEXTS)] if ".txt" in ending else TEXTS
    assert read(write_source(tmp_path / f"x{ending}", documents)) == documents


@given(st.lists(st.tuples(texts, st.booleans())))
def test_json_lines_hold_any_text(documents):
    with tempfile.TemporaryDirectory() as folder:
        path = write_lines(Path(folder) / "x.jsonl", [json_line(text, escaped) for text, escaped in documents])
        assert list(iter_documents(path)) == [Document(text, i) for i, (text, _) in enumerate(documents, 1)]


@given(texts, st.integers(4, 9))
def test_plain_text_is_one_document_as_it_is(text, block_bytes):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_BLOCK_BYTES", block_bytes)
        path = Path(folder) / "x.txt"
        path.write_bytes(text.encode())
        without_mark = text.removeprefix("\ufeff")
        assert read(path) == ([without_mark] if without_mark else [])


def split_at_blank_lines(text):
    """All at once, with the whole text in memory."""
    groups, group = [], []
    for line in [*text.split("\n"), ""]:
        if line.strip():
            group.append(line)
        elif group:
            groups.append("\n".join(group).rstrip("\r\n"))
            group = []
    return groups


@given(st.text(st.sampled_from("あb \n\n\r\u3000")), st.integers(4, 9))
def test_blank_lines_separate_documents_if_asked(text, block_bytes):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_BLOCK_BYTES", block_bytes)
        path = Path(folder) / "x.txt"
        path.write_bytes(text.encode())
        assert read(path, split_blank_lines=True) == split_at_blank_lines(text)


def test_blank_json_lines_are_passed_over_and_counted_as_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json_line("一") + b"\r\n\n   \n" + json_line("二"))
    assert list(iter_documents(path)) == [Document("一", 1), Document("二", 4)]


def test_the_field_has_a_name(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [b'{"body": "a", "text": "b"}'])
    assert read(path, field="body") == ["a"]


BAD_LINES = {
    b'{"text": "a"': "no JSON",
    b"plain words": "no JSON",
    b'{"txt": "a", "id": 1}': "found 'txt', 'id'",
    b"{}": "found no field",
    b'["text"]': "found a list",
    b'"text"': "found a string",
    b'{"text": null}': "found null as 'text'",
    b'{"text": 3}': "found a number as 'text'",
    b'{"text": true}': "found a boolean as 'text'",
    b'{"text": ["a"]}': "found a list as 'text'",
    b'{"text": "ab\\ud800"}': "lone surrogate U+D800 at character 2",
    b'{"text": "\\udc00\\ud800"}': "lone surrogate U+DC00 at character 0",
    b'{"text": "\xff"}': "bytes ff at byte 10",
    b'{"text": "\xed\xa0\x80"}': "bytes ed",
    b'{"text": "\xe3\x81"}': "bytes e3 81",
    b"[" * 100_000: "cannot be read",
    b'{"text": "a", "n": ' + b"1" * 5000 + b"}": "cannot be read",
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.items(), ids=range(len(BAD_LINES)))
def test_a_bad_line_names_file_and_line(tmp_path, line, reason):
    path = write_lines(tmp_path / "x.jsonl.gz", [json_line("一"), b"", line, json_line("二")])
    with pytest.raises(CorpusError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}:3: ")
    assert reason in str(raised.value)
    assert "expected" in str(raised.value)
    assert "\n" not in str(raised.value)
    skipped: list[BadLine] = []
    assert read(path, on_bad_line=skipped.append) == ["一", "二"]
    assert [(bad.file, bad.line) for bad in skipped] == [(str(path), 3)]


def test_an_endless_line_is_bad_and_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 50)
    monkeypatch.setattr(readers, "_BLOCK_BYTES", 16)
    fits = json_line("a" * (50 - len(json_line(""))))
    path = write_lines(tmp_path / "x.jsonl", [json_line("一"), b"x" * 51, fits, b"y" * 500])
    skipped: list[BadLine] = []
    assert [d.line for d in iter_documents(path, on_bad_line=skipped.append)] == [1, 3]
    assert [bad.line for bad in skipped] == [2, 4]


@pytest.mark.parametrize("block_bytes", [8, 1 << 20])
def test_plain_text_that_is_not_utf8_names_the_line(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(readers, "_BLOCK_BYTES", block_bytes)
    path = write_lines(tmp_path / "x.txt", ["一行目".encode(), b"ab\xffc", "三行目".encode(), b"\xe3\x81"])
    with pytest.raises(CorpusError, match=r"x\.txt:2: found the bytes ff at byte 2 .*expected UTF-8"):
        read(path)
    skipped: list[BadLine] = []
    assert read(path, on_bad_line=skipped.append) == ["一行目\n三行目\n"]
    assert [bad.line for bad in skipped] == [2, 4]


def test_parquet_rows_that_are_bad(tmp_path):
    column = pa.array([b"a", None, b"\xff", "二".encode()], pa.binary())
    pq.write_table(pa.table({"text": column.view(pa.string())}), tmp_path / "x.parquet")
    with pytest.raises(CorpusError, match=r"x\.parquet:2: found null .*rows"):
        read(tmp_path / "x.parquet")
    skipped: list[BadLine] = []
    assert read(tmp_path / "x.parquet", on_bad_line=skipped.append) == ["a", "二"]
    assert [bad.line for bad in skipped] == [2, 3]


def test_parquet_columns(tmp_path):
    path = tmp_path / "x.parquet"
    for kind in (pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        pq.write_table(pa.table({"text": pa.array(["a", "a", "b"]).cast(kind)}), path)
        assert read(path) == ["a", "a", "b"]
    with pytest.raises(CorpusError, match="found the columns 'text', expected a string column 'body'"):
        read(path, field="body")
    pq.write_table(pa.table({"text": [1, 2]}), path)
    with pytest.raises(CorpusError, match="column 'text': found the type int64, expected string"):
        read(path)


@pytest.mark.parametrize("ending", [e for e in ENDINGS if e.count(".") == 2] + [".parquet"])
@pytest.mark.parametrize("part", [0.3, 0.9, "all but one byte"])
def test_a_truncated_file_is_refused(tmp_path, ending, part):
    documents = ["".join(TEXTS * 50)] if ".txt" in ending else TEXTS * 50
    path = write_source(tmp_path / f"x{ending}", documents)
    data = path.read_bytes()
    path.write_bytes(data[:-1] if isinstance(part, str) else data[: int(len(data) * part)])
    with pytest.raises(CorpusError, match=r"x\..*: found a truncated or altered"):
        read(path)


def test_several_frames_are_one_file(tmp_path):
    first, second = json_line("一") + b"\n", json_line("二") + b"\n"
    for ending, pack in ((".gz", gzip.compress), (".zst", zstandard.compress)):
        path = tmp_path / f"x.jsonl{ending}"
        path.write_bytes(pack(first) + pack(b"") + pack(second))
        assert read(path) == ["一", "二"]
        path.write_bytes(pack(first) + pack(second)[:-4])
        with pytest.raises(CorpusError, match="truncated or altered"):
            read(path)


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_what_expands_far_is_not_held_in_memory(tmp_path, ending):
    path = tmp_path / f"zeros{ending}"
    path.write_bytes(compress(bytes(1 << 26), path))
    tracemalloc.start()
    with path.open("rb") as raw, open_stream(raw, ending) as stream:
        assert sum(len(block) for block in iter(partial(stream.read, 1 << 20), b"")) == 1 << 26
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 << 20


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere\.jsonl: no such file"):
        read(tmp_path / "nowhere.jsonl")
    (tmp_path / "x.csv.gz").touch()
    with pytest.raises(CorpusError, match=r"x\.csv\.gz: found the ending '\.csv\.gz', expected \.jsonl, "):
        read(tmp_path / "x.csv.gz")
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(CorpusError, match="not a file"):
        read(tmp_path / "x.jsonl")
    (tmp_path / "x.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(CorpusError, match="truncated or altered"):
        read(tmp_path / "x.txt.gz")


def test_folders_are_searched_in_order(tmp_path):
    names = ["b.jsonl", "a/z.txt", "a/b/c.PARQUET", "c.jsonl.zst"]
    for name in [*names, "README.md", "a/notes.gz", "c.jsonl.tmp"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [Path(source.name) for source in find_sources(tmp_path)] == sorted(tmp_path / name for name in names)
    assert find_sources([tmp_path / "c.jsonl.zst", tmp_path / "a"])[0].name == str(tmp_path / "c.jsonl.zst")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="empty: found no file to read"):
        find_sources([tmp_path / "empty"])
    with pytest.raises(CorpusError, match="no path"):
        find_sources([])

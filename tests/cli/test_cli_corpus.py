import errno
import json
import os
from pathlib import Path

import pytest
import yaml

from bytelm.cli import corpus as command
from bytelm.corpus import Corpus
from bytelm.encoding import get_encoding


@pytest.fixture
def built(run, documents, tmp_path):
    folder = tmp_path / "corpus"
    return folder, run("corpus", "build", documents, "--out", folder, "--encoding", "utf8", "--json")


def test_build(built, documents, check_fields):
    folder, outcome = built
    result = outcome.json
    check_fields(command.build, result)
    texts = [json.loads(line)["text"] for line in documents.read_text(encoding="utf-8").splitlines()]
    utf8 = sum(len(text.encode()) for text in texts)
    assert (result["documents"], result["characters"], result["utf8_bytes"]) == (5, sum(map(len, texts)), utf8)
    assert result["bytes"] == utf8 + 5 * 5  # a BOS patch of 4 and an EOS of 1 for each
    counts = {"documents": 5, "bad_lines": 0, "too_short": 0, "too_long": 0, "duplicates": 0}
    assert result["sources"] == [{"path": str(documents), **counts}]
    assert (result["valid"], result["kept_parts"]) == (None, 0)
    assert outcome.err == ""
    corpus = Corpus.open(folder, get_encoding("utf8"))
    assert corpus.num_bytes == result["bytes"]


def test_info(run, built, check_fields):
    folder, outcome = built
    result = run("corpus", "info", folder, "--json").json
    check_fields(command.info, result)
    same = set(result) - {"command", "verified"}
    assert set(outcome.json) - same == {"command", "seconds", "valid", "kept_parts"}
    assert {name: result[name] for name in same} == {name: outcome.json[name] for name in same}
    assert result["verified"] is True
    status, out, err = run("corpus", "info", folder)
    assert (status, err) == (0, "")
    assert "5 documents" in out
    assert "utf8" in out


def test_choosing_documents(run, documents, texts, tmp_path, check_fields):
    with documents.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps({"text": f"{text}と、もう一度。"}) + "\n" for text in texts * 2))
    build = ("corpus", "build", documents, "--out", tmp_path / "out", "--deduplicate", "--min-characters", 10)
    outcome = run(*build, "--max-characters", 40, "--valid-share", 0.5, "--json")
    result, valid = outcome.json, outcome.json["valid"]
    check_fields(command.build, result)
    assert (result["folder"], valid["folder"]) == (str(tmp_path / "out" / "train"), str(tmp_path / "out" / "valid"))
    names = ("documents", "too_short", "too_long", "duplicates")
    assert [result[name] + valid[name] for name in names] == [6, 3, 3, 3]
    for side in ("train", "valid"):
        status, out, _ = run("corpus", "info", tmp_path / "out" / side)
        assert status == 0
        assert "documents left out: " in out


def test_a_build_goes_on(run, documents, tmp_path):
    bad = tmp_path / "z.jsonl"
    bad.write_text("{")
    build = ("corpus", "build", documents, bad, "--out", tmp_path / "out", "--shard-bytes", 100, "--json")
    run(*build).refused("z.jsonl:1")
    run(*build, "--skip-bad-lines").refused("unfinished build with skip_bad_lines = False, expected True", "overwrite")
    state = bad.stat()
    bad.write_text("\n")
    os.utime(bad, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert run(*build).json["kept_parts"] == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir())[0] == "manifest.json"


def test_bench(run, documents, check_fields):
    arguments = ("corpus", "bench", documents, "--megabytes", 0.01, "--repeats", 1, "--workers", 2)
    result = run(*arguments, "--json").json
    check_fields(command.bench, result)
    names = [(row["name"], row["workers"]) for row in result["rows"]]
    assert names == [
        *((name, 1) for name in (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")),
        ("--valid-share 0.5", 1),
        ("--deduplicate", 1),
        (".jsonl", 2),
    ]
    stored = {row["stored_bytes"] for row in result["rows"] if row["name"].startswith(".")}
    assert len(stored) == 1
    assert all(row["mb_per_second"] > 0 for row in result["rows"])
    run("corpus", "bench", documents, "--megabytes", 0).refused("--megabytes: found 0")


def test_damage_is_seen(run, built):
    folder, _ = built
    shard = folder / "shard-00000.bin"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + b"\x00")
    run("corpus", "info", folder).refused("shard-00000.bin", "SHA-256")
    assert run("corpus", "info", folder, "--no-verify", "--json").json["verified"] is False
    shard.write_bytes(data[:-1])
    run("corpus", "info", folder, "--no-verify").refused("shard-00000.bin", f"found {len(data) - 1} bytes")
    shard.unlink()
    run("corpus", "info", folder).refused("shard-00000.bin", "No such file")


def test_no_corpus(run, tmp_path):
    run("corpus", "info", tmp_path).refused("manifest.json", "finished corpus")
    run("corpus", "info", tmp_path / "nowhere").refused("manifest.json")


def test_existing_corpus_is_kept_unless_told(run, built, documents):
    folder, _ = built
    before = (folder / "manifest.json").read_bytes()
    build = ("corpus", "build", documents, "--out", folder)
    run(*build).refused(str(folder), "manifest.json")
    assert (folder / "manifest.json").read_bytes() == before
    assert run(*build, "--overwrite", "--json").json["encoding"] == "dense-ja"


def test_bad_input(run, documents, tmp_path):
    out = tmp_path / "out"
    run("corpus", "build", tmp_path / "nowhere.txt", "--out", out).refused("nowhere.txt", "no such file")
    run("corpus", "build", tmp_path / "empty", "--out", out).refused("empty")
    empty = tmp_path / "empty.txt"
    empty.touch()
    run("corpus", "build", empty, "--out", out).refused("empty.txt", "no document")
    run("corpus", "build", documents, "--out", out, "--encoding", "sjis").refused("'sjis'", "dense-ja")
    run("corpus", "build", documents, "--out", out, "--workers", -1).refused("workers: found -1")
    run("corpus", "build", documents, "--out", documents).refused("documents.jsonl", "expected a folder")
    other = tmp_path / "text.doc"
    other.touch()
    run("corpus", "build", other, "--out", out).refused("text.doc", "'.doc'")
    assert not out.exists()


def test_bad_lines(run, documents, tmp_path):
    with documents.open("ab") as file:
        file.write(b'{"text": "\\ud800"}\n\xff\n')
    build = ("corpus", "build", documents, "--out", tmp_path / "out")
    run(*build).refused("documents.jsonl:6", "U+D800")
    result = run(*build, "--skip-bad-lines", "--json").json
    assert (result["bad_lines"], result["documents"]) == (2, 5)
    status, out, _ = run("corpus", "info", tmp_path / "out")
    assert status == 0
    assert "documents.jsonl:6" in out
    assert "documents.jsonl:7" in out


def test_disk_full_while_writing_a_shard(run, documents, tmp_path, monkeypatch):
    calls = []
    really = os.fsync

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    out = tmp_path / "out"
    outcome = run("corpus", "build", documents, "--out", out, "--shard-bytes", 50)
    outcome.refused("part-00000.all.00001.bin", "No space left on device", "the same command goes on")
    assert not out.exists()
    run("corpus", "info", out).refused("manifest.json")


def test_folder_that_cannot_be_made(run, documents):
    run("corpus", "build", documents, "--out", documents / "below").refused("below")


def test_a_mixture_survives_the_configuration_of_a_run(run, tmp_path):
    config = Path(__file__).parents[2] / "experiments" / "configs" / "ja_small.yaml"
    entries = [{"corpus": str(tmp_path / "a"), "weight": 0.7}, {"corpus": str(tmp_path / "b"), "weight": 1.0}]
    status, out, _ = run("fit", "--config", config, "--data.train", json.dumps(entries), "--print_config")
    assert status == 0
    assert yaml.safe_load(out)["data"]["train"] == entries

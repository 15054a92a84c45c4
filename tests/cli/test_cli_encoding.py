import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bytelm.cli import encoding as command
from bytelm.encoding import get_encoding, list_encodings, read_table

TRAIN = Path(__file__).parents[3] / "shared" / "data" / "ja_train.jsonl.xz"


def test_list(run, check_fields):
    result = run("encoding", "list", "--sample", "月とmoon", "--json").json
    check_fields(command.list_command, result)
    assert [entry["name"] for entry in result["encodings"]] == list_encodings()
    for entry in result["encodings"]:
        encoding = get_encoding(entry["name"])
        assert (entry["digest"], entry["max_word"]) == (encoding.digest, encoding.max_word)
        assert entry["bytes_per_character"] == len(encoding.encode("月とmoon")) / 6
        assert bytes.fromhex(entry["controls"]["<|eos|>"]) == encoding.controls["<|eos|>"]


def test_list_for_people(run):
    status, out, _ = run("encoding", "list", "--sample", "月")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["name", "digest"]
    assert lines[1].startswith(f"utf8      {get_encoding('utf8').digest[:12]}")
    assert "3.000" in lines[1]
    assert lines[-1].endswith("sample: 月")


def test_list_refuses_an_empty_sample(run):
    run("encoding", "list", "--sample", "").refused("--sample")


def test_fit_and_use_the_table(run, documents, tmp_path, check_fields):
    table = tmp_path / "mine.json"
    fitted = run("encoding", "fit", documents, "--name", "mine", "--out", table, "--min-count", 1, "--json").json
    check_fields(command.fit, fitted)
    counts = Counter("".join(json.loads(line)["text"] for line in documents.read_text(encoding="utf-8").splitlines()))
    assert (fitted["documents"], fitted["characters"], fitted["ranked"]) == (5, counts.total(), len(counts))
    encoding = read_table(table)
    assert (encoding.digest, encoding.s, encoding.c) == (fitted["digest"], fitted["s"], fitted["c"])
    cost = sum(n * len(encoding.encode(c)) for c, n in counts.items())
    assert fitted["bytes_per_character"] == pytest.approx(cost / counts.total())

    shown = run("encoding", "show", "朝", "--encoding", table, "--json").json
    assert (shown["encoding"], shown["digest"]) == ("mine", encoding.digest)
    built = run("corpus", "build", documents, "--encoding", table, "--out", tmp_path / "corpus", "--json").json
    assert (built["encoding"], built["encoding_digest"]) == ("mine", encoding.digest)


def test_fit_reads_every_format_in_folders(run, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("月月\n\n火", encoding="utf-8")
    (tmp_path / "in" / "deep" / "b.jsonl").write_text('{"body": "水"}\n', encoding="utf-8")
    options = ("--name", "x", "--min-count", 1, "--field", "body", "--split-blank-lines", "--json")
    result = run("encoding", "fit", tmp_path / "in", "--out", tmp_path / "x.json", *options).json
    assert (result["documents"], result["characters"], result["ranked"]) == (3, 4, 3)


def test_fit_refuses(run, documents, tmp_path):
    fit = ("encoding", "fit", documents, "--name", "mine", "--out")
    run(*fit, tmp_path / "mine.txt").refused("mine.txt", "expected .json")
    run(*fit, tmp_path / "no" / "folder" / "mine.json").refused("mine.json")
    run(*fit, tmp_path / "a.json", "--min-count", 0).refused("min_count: found 0")
    run(*fit, tmp_path / "a.json", "--field", "body").refused("documents.jsonl:1", "'body'")
    run("encoding", "fit", tmp_path / "nowhere", "--name", "a", "--out", tmp_path / "a.json").refused("nowhere")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    run("encoding", "fit", empty, "--name", "a", "--out", tmp_path / "a.json").refused("empty.jsonl", "no document")
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "mine.json").write_text("kept")
    run(*fit, tmp_path / "mine.json").refused("mine.json", "--overwrite")
    assert (tmp_path / "mine.json").read_text() == "kept"
    assert run(*fit, tmp_path / "mine.json", "--overwrite").status == 0
    read_table(tmp_path / "mine.json")


def test_table_with_the_name_of_another_encoding(run, documents, tmp_path):
    table = tmp_path / "other.json"
    assert run("encoding", "fit", documents, "--name", "utf8", "--out", table).status == 0
    run("encoding", "show", "月", "--encoding", table).refused("other.json", "'utf8'", "registered under this name")


def test_damaged_table(run, documents, tmp_path):
    table = tmp_path / "mine.json"
    run("encoding", "fit", documents, "--name", "mine", "--out", table)
    damaged = json.loads(table.read_text(encoding="utf-8"))
    damaged["ranked"] = damaged["ranked"][::-1]
    table.write_text(json.dumps(damaged), encoding="utf-8")
    run("encoding", "show", "月", "--encoding", table).refused("mine.json", "digest")


def test_fit_skips_bad_lines(run, documents, tmp_path):
    with documents.open("a", encoding="utf-8") as file:
        file.write("no json\n" * 7)
    fit = ("encoding", "fit", documents, "--name", "mine", "--out", tmp_path / "mine.json")
    run(*fit).refused("documents.jsonl:6", "no JSON")
    outcome = run(*fit, "--skip-bad-lines", "--json")
    assert (outcome.json["bad_lines"], outcome.json["documents"]) == (7, 5)
    assert "warning" in outcome.err
    assert "documents.jsonl:6" in outcome.err
    assert outcome.err.count("\n") == 6  # the first five, and that there are more


@pytest.mark.slow
@pytest.mark.skipif(not TRAIN.is_file(), reason=f"needs {TRAIN.name}, the text that the table was fitted to")
def test_the_shipped_table_comes_from_this_command(run, tmp_path):
    result = run("encoding", "fit", TRAIN, "--name", "dense-ja", "--out", tmp_path / "dense-ja.json", "--json").json
    shipped = get_encoding("dense-ja")
    assert result["digest"] == shipped.digest
    assert np.array_equal(read_table(tmp_path / "dense-ja.json").words, shipped.words)

import json

from bytelm.cli import encoding as command
from bytelm.encoding import get_encoding, list_encodings


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
    assert lines[1].startswith(f"utf8       {get_encoding('utf8').digest[:12]}")
    assert "3.000" in lines[1]
    assert lines[-1].endswith("sample: 月")


def test_list_refuses_an_empty_sample(run):
    run("encoding", "list", "--sample", "").refused("--sample")


def test_table_with_the_name_of_another_encoding(run, documents, tmp_path):
    table = tmp_path / "other.json"
    assert run("encoding", "fit", documents, "--name", "utf8", "--out", table).status == 0
    run("encoding", "show", "月", "--encoding", table).refused("other.json", "'utf8'", "registered under this name")


def test_damaged_table(run, documents, tmp_path):
    table = tmp_path / "mine.json"
    run("encoding", "fit", documents, "--name", "mine", "--out", table)
    damaged = json.loads(table.read_text(encoding="utf-8"))
    damaged["ranked"][0] = damaged["ranked"][0][::-1]
    table.write_text(json.dumps(damaged), encoding="utf-8")
    run("encoding", "show", "月", "--encoding", table).refused("mine.json", "digest")

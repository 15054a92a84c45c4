import json

import pytest

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


def test_show(run, check_fields):
    result = run("encoding", "show", "a月𠮷", "--encoding", "utf8", "--json").json
    check_fields(command.show, result)
    assert result["characters"] == [
        {"character": "a", "scalar": 0x61, "word": "61", "start": 0},
        {"character": "月", "scalar": 0x6708, "word": "e69c88", "start": 1},
        {"character": "𠮷", "scalar": 0x20BB7, "word": "f0a0aeb7", "start": 4},
    ]
    assert result["patches"] == ["61e69c88", "f0a0aeb7"]
    assert (result["bytes"], result["bytes_per_character"]) == (8, 8 / 3)


@pytest.mark.parametrize("name", list_encodings())
def test_show_agrees_with_the_encoding(run, name):
    text = "雨のち晴れ、気温は21℃🌤\n𠮷"
    result = run("encoding", "show", text, "--encoding", name, "--json").json
    data = get_encoding(name).encode(text).tobytes()
    assert "".join(entry["word"] for entry in result["characters"]) == data.hex()
    assert "".join(result["patches"]) == data.hex()
    for entry in result["characters"]:
        word = get_encoding(name).encode(entry["character"]).tobytes()
        assert data[entry["start"] :].startswith(word)
        assert (entry["word"], entry["scalar"]) == (word.hex(), ord(entry["character"]))


def test_show_for_people_marks_patches(run):
    status, out, _ = run("encoding", "show", "a月\n𠮷b", "--encoding", "utf8", "--patch", "3")
    assert status == 0
    assert "|61" in out
    assert " e6 9c|88" in out
    assert "U+20BB7" in out
    assert "f0|a0 ae b7" in out
    assert "\\n" in out
    assert out.splitlines()[-1] == "utf8: 5 characters, 10 bytes, 4 patches of 3, 2.000 bytes/char"


def test_show_nothing(run):
    result = run("encoding", "show", "", "--json").json
    assert (result["characters"], result["bytes_per_character"]) == ([], None)


def test_show_refuses(run):
    run("encoding", "show", "月", "--encoding", "utf9").refused("'utf9'", "dense-ja")
    run("encoding", "show", "月\udc80").refused("TEXT: text index 1", "the byte 80")
    run("encoding", "show", "月\ud800").refused("TEXT: text index 1", "U+D800")
    run("encoding", "show", "月", "--encoding", "missing.json").refused("missing.json", "No such file")


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

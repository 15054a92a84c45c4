import pytest

from bytelm.cli import encoding_show as command
from bytelm.encoding import get_encoding, list_encodings
from bytelm.encoding.view import DEFAULT_ENCODINGS


def test_show(run, check_fields):
    result = run("encoding", "show", "a月𠮷", "--encoding", "utf8", "--json").json
    check_fields(command.show, result)
    first = {"first_patch": 0, "last_patch": 0}
    assert result["characters"] == [
        {"character": "a", "scalar": 0x61, "name": "LATIN SMALL LETTER A", "word": "61", "start": 0}
        | {"classes": ["ascii"], **first},
        {"character": "月", "scalar": 0x6708, "name": "CJK UNIFIED IDEOGRAPH-6708", "word": "e69c88", "start": 1}
        | {"classes": ["lead", "trail", "trail"], **first},
        {"character": "𠮷", "scalar": 0x20BB7, "name": "CJK UNIFIED IDEOGRAPH-20BB7", "word": "f0a0aeb7", "start": 4}
        | {"classes": ["lead", "trail", "trail", "trail"], "first_patch": 1, "last_patch": 1},
    ]
    assert result["patches"] == ["61e69c88", "f0a0aeb7"]
    assert (result["bytes"], result["bytes_per_character"]) == (8, 8 / 3)
    assert [entry["encoding"] for entry in result["encodings"]] == ["utf8"]
    assert result["encodings"][0]["characters"] == result["characters"]


def test_show_many(run):
    result = run("encoding", "show", "月", "--encoding", "utf16", "--encoding", "utf8", "--json").json
    assert result["encoding"] == "utf16"
    assert [(entry["encoding"], entry["patches"]) for entry in result["encodings"]] == [
        ("utf16", ["6708"]),
        ("utf8", ["e69c88"]),
    ]
    default = run("encoding", "show", "月", "--json").json
    assert [entry["encoding"] for entry in default["encodings"]] == list(DEFAULT_ENCODINGS)


def test_show_draws(run, tmp_path):
    png = tmp_path / "dense.png"
    assert run("encoding", "show", "朝の港で、🐱が 🐟\n", "--png", png, "--json").json["png"] == str(png)
    assert png.read_bytes().startswith(b"\x89PNG")
    run("encoding", "show", "月", "--encoding", "utf8", "--png", png).refused("found utf8", "dense")
    run("encoding", "show", "月" * 14, "--png", png).refused("found 42 bytes", "1 to 40")
    run("encoding", "show", "", "--png", png).refused("found 0 bytes")
    run("encoding", "show", "月", "--png", tmp_path / "no" / "dense.png").refused("dense.png")


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

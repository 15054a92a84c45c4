import pytest

from bytelm.cli import encoding_compare as command
from bytelm.encoding import get_encoding

JA = ["春の海は静かで、船が二つ見える。", "夏の山は青く、雲が高い。", "秋の道を犬と歩いた。", "冬の朝、雪が降った🗻。"]
EN = ["A small boat waits.", "Rain fell on the old road.", "Two dogs sleep."]


@pytest.fixture
def corpora(tmp_path, write_documents):
    return [f"ja={write_documents('ja', JA)}", f"en={write_documents('en', EN)}"]


@pytest.fixture
def write_documents(tmp_path):
    def write(name, texts):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts), encoding="utf-8")
        return path

    return write


def test_compare(run, corpora, tmp_path, check_fields):
    png = tmp_path / "c.png"
    result = run("encoding", "compare", *corpora, "--patches", 20, "--png", png, "--json").json
    check_fields(command.compare, result)
    rows = {(row["group"], row["code"]): row for row in result["rows"]}
    assert len(rows) == 16
    for group, texts in (("ja", JA), ("en", EN)):
        text = "".join(texts)
        for name in ("utf8", "dense-ja", "utf16"):
            size = len(get_encoding(name).encode(text)) / len(text)
            assert rows[group, name]["bytes_per_character"] == pytest.approx(size)
            assert rows[group, name]["characters_per_patch"] == pytest.approx(4 / size)
            assert rows[group, name]["missing"] == 0
    assert rows["ja", "cp932"]["missing"] == pytest.approx(1 / len("".join(JA)))
    assert rows["en", "utf16"]["aligned"] == pytest.approx(0.5, abs=0.51)
    assert rows["ja", "utf32"]["aligned"] == 1
    assert all(row["correlation_per_patch"] > -1e-9 for row in result["rows"])
    assert png.read_bytes().startswith(b"\x89PNG")


def test_compare_for_people(run, corpora):
    status, out, _ = run("encoding", "compare", *corpora, "--encodings", "utf8,cp932,dense-ja")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("bytes per character")
    assert lines[1].split() == ["utf8", "cp932", "dense-ja"]
    assert lines[2].split()[0] == "ja"
    assert "*" in lines[2]
    assert lines[3].split()[1] == "1.000"
    assert lines[-1].startswith("characters without a word: cp932 on ja: ")


def test_the_draw_depends_on_the_seed_alone(run, corpora):
    options = ("--encodings", "utf8", "--patches", 3, "--json")
    one, again, other = (run("encoding", "compare", *corpora, *options, "--seed", seed).json for seed in (1, 1, 2))
    assert one["rows"] == again["rows"] != other["rows"]


def test_compare_refuses(run, corpora, tmp_path):
    run("encoding", "compare", *corpora, "--encodings", "utf9").refused("'utf9'")
    run("encoding", "compare", *corpora, "--png", "nowhere/c.png").refused("nowhere", "no folder")
    run("encoding", "compare", tmp_path / "nowhere.jsonl").refused("nowhere.jsonl", "no such file")
    (tmp_path / "empty.jsonl").touch()
    run("encoding", "compare", tmp_path / "empty.jsonl").refused("empty.jsonl", "no character")

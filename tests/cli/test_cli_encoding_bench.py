import pytest

from bytelm.cli import encoding_bench as command
from bytelm.encoding import list_encodings

TINY = ("--megabytes", "0.01", "--repeats", 1, "--seconds", "0.5")


def test_bench(run, documents, tmp_path, check_fields):
    png = tmp_path / "speed.png"
    result = run("encoding", "bench", documents, *TINY, "--png", png, "--json").json
    check_fields(command.bench, result)
    assert (result["command"], result["text"], result["png"]) == ("encoding bench", str(documents), str(png))
    assert 9_990 < result["utf8_bytes"] <= 10_000
    assert result["distinct_utf8_bytes"] < 1_000
    names = [entry["name"] for entry in result["coders"]]
    assert names[: 1 + len(list_encodings())] == ["str.encode", *list_encodings()]
    assert {"tiktoken", "tokenizers"} <= {entry["name"] for entry in result["skipped"]}
    assert {entry["text"] for entry in result["memory"]} == {"text", "ASCII", "emoji"}
    assert png.read_bytes().startswith(b"\x89PNG")


def test_bench_for_people_on_the_text_of_the_package(run):
    status, out, _ = run("encoding", "bench", *TINY)
    assert status == 0
    assert out.startswith("Japanese text of the package: 0.01 MB of UTF-8")
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert set(list_encodings()) <= set(lines)
    assert "not measured: tiktoken: no folder" in out or "not measured: tiktoken: cannot be imported" in out
    assert "at most 6 times" in out


def test_bench_reads_no_more_than_it_needs(run, documents):
    with documents.open("a", encoding="utf-8") as file:
        file.write("no json\n")
    result = run("encoding", "bench", documents, "--megabytes", "0.0001", "--repeats", 1, "--json").json
    assert 50 < result["utf8_bytes"] <= 100
    run("encoding", "bench", documents, *TINY).refused("documents.jsonl:6", "no JSON")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--megabytes", "0"), ("--megabytes: found 0.0",)),
        (("--seconds", "-1"), ("--seconds: found -1.0",)),
        (("--repeats", "0"), ("--repeats",)),
        (("--gpt2-bpe", "nowhere", "--megabytes", "0.01"), ("vocab.json", "no such file")),
        (("--png", "nowhere/speed.png"), ("nowhere/speed.png", "no folder")),
        (("nowhere.jsonl",), ("nowhere.jsonl", "no such file")),
    ],
)
def test_bench_refuses(run, arguments, parts):
    run("encoding", "bench", *arguments).refused(*parts)


def test_bench_refuses_a_text_without_characters(run, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    run("encoding", "bench", empty).refused("found no character")

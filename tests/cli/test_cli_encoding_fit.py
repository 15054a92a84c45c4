"""``bytelm encoding fit`` and ``bytelm encoding check``."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bytelm.cli import encoding_check, encoding_fit
from bytelm.corpus import in_test
from bytelm.encoding import ASCII_ONE_BYTE, ORDERS, get_encoding, list_encodings, read_table

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the texts that the tables were fitted to")


@pytest.fixture
def languages(tmp_path):
    """A little Russian and Thai, much Greek, by the field ``lang``; ids fall on both sides of the split."""
    words = {"ru": "снег идёт над рекой", "th": "ฝนตกที่สวน", "el": "η θάλασσα είναι ήσυχη"}
    path = tmp_path / "languages.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for i in range(60):
            for lang, text in words.items():
                record = {"text": text * (40 if lang == "el" else 1), "lang": lang, "id": f"{lang}-{i}"}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return path


def test_choices_of_order_are_those_of_the_package():
    assert tuple(map(str, encoding_fit.Order)) == ORDERS


def test_fit_and_use_the_table(run, documents, tmp_path, check_fields):
    table = tmp_path / "mine.json"
    fitted = run("encoding", "fit", documents, "--name", "mine", "--out", table, "--min-count", 1, "--json").json
    check_fields(encoding_fit.fit, fitted)
    counts = Counter("".join(json.loads(line)["text"] for line in documents.read_text(encoding="utf-8").splitlines()))
    assert (fitted["documents"], fitted["characters"]) == (5, counts.total())
    assert fitted["ranked"] == len(set(counts) | set(ASCII_ONE_BYTE))
    encoding = read_table(table)
    assert (encoding.digest, encoding.s, encoding.c) == (fitted["digest"], fitted["s"], fitted["c"])
    cost = sum(n * len(encoding.encode(c)) for c, n in counts.items())
    assert fitted["bytes_per_character"] == pytest.approx(cost / counts.total())
    assert sum(fitted["shares"].values()) == pytest.approx(1)
    (group,) = fitted["groups"]
    assert (group["name"], group["characters"]) == ("documents", counts.total())
    utf8 = sum(n * len(c.encode()) for c, n in counts.items())
    assert group["utf8_bytes_per_character"] == pytest.approx(utf8 / counts.total())

    shown = run("encoding", "show", "朝", "--encoding", table, "--json").json
    assert (shown["encoding"], shown["digest"]) == ("mine", encoding.digest)
    built = run("corpus", "build", documents, "--encoding", table, "--out", tmp_path / "corpus", "--json").json
    assert (built["encoding"], built["encoding_digest"]) == ("mine", encoding.digest)


def test_fit_for_people(run, documents, tmp_path):
    status, out, _ = run("encoding", "fit", documents, "--name", "mine", "--out", tmp_path / "mine.json")
    assert status == 0
    assert "mine, digest " in out.splitlines()[0]
    for part in ("share of 1-byte words", "Huffman", "entropy", "documents  "):
        assert part in out


def test_fit_reads_every_format_in_folders(run, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("月月\n\n火", encoding="utf-8")
    (tmp_path / "in" / "deep" / "b.jsonl").write_text('{"body": "水"}\n', encoding="utf-8")
    options = ("--name", "x", "--min-count", 1, "--field", "body", "--split-blank-lines", "--json")
    result = run("encoding", "fit", tmp_path / "in", "--out", tmp_path / "x.json", *options).json
    assert (result["documents"], result["characters"], result["ranked"]) == (3, 4, 3 + len(ASCII_ONE_BYTE))


def test_groups_and_sides(run, languages, tmp_path):
    fit = ("encoding", "fit", f"{languages}@train", f"more={languages}@test", "--group", "lang", "--name", "x")
    result = run(*fit, "--out", tmp_path / "x.json", "--json").json
    names = [f"{lang}-{i}" for i in range(60) for lang in ("ru", "th", "el")]
    train = Counter(name[:2] for name in names if not in_test(name))
    found = {group["name"]: group["documents"] for group in result["groups"]}
    assert found == {**train, "more": 180 - train.total()}


def test_balance_gives_every_group_the_same_weight(run, languages, tmp_path):
    fit = ("encoding", "fit", languages, "--group", "lang", "--name", "x", "--json", "--out")
    plain = run(*fit, tmp_path / "plain.json").json
    balanced = run(*fit, tmp_path / "balanced.json", "--balance").json
    for result, weight in ((plain, lambda group: group["characters"]), (balanced, lambda group: 1)):
        weights = [weight(group) for group in result["groups"]]
        ratios = [group["bytes_per_character"] for group in result["groups"]]
        assert result["bytes_per_character"] == pytest.approx(np.average(ratios, weights=weights))
    ranks = [read_table(tmp_path / f"{name}.json").ranked for name in ("plain", "balanced")]
    # Greek has 40 times the text: its rarest letter stands before all Russian ones until the groups weigh the same
    assert [ranked.index("д") < ranked.index("χ") for ranked in ranks] == [False, True]


@pytest.mark.parametrize("options", [(), ("--order", "context"), ("--order", "spread", "--family", "ranked")])
def test_any_number_of_workers_gives_the_same_file(run, languages, tmp_path, monkeypatch, options):
    monkeypatch.setattr("bytelm.corpus.counting._BATCH_CHARACTERS", 1000)
    for workers in (0, 2):
        fit = ("encoding", "fit", languages, "--group", "lang", "--balance", "--name", "x", "--workers", workers)
        assert run(*fit, *options, "--out", tmp_path / f"{workers}.json").status == 0
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_fit_ranked(run, documents, tmp_path, check_fields):
    fit = ("encoding", "fit", documents, "--name", "mine", "--family", "ranked", "--out", tmp_path / "mine.json")
    result = run(*fit, "--json").json
    check_fields(encoding_fit.fit, result)
    assert (result["family"], result["s"], result["c"]) == ("ranked2", None, None)
    assert result["bytes_per_character"] == 2


def test_fit_refuses(run, documents, tmp_path):
    fit = ("encoding", "fit", documents, "--name", "mine", "--out")
    run(*fit, tmp_path / "mine.txt").refused("mine.txt", "expected .json")
    run(*fit, tmp_path / "no" / "folder" / "mine.json").refused("mine.json")
    run(*fit, tmp_path / "a.json", "--min-count", 0).refused("min_count: found 0")
    run(*fit, tmp_path / "a.json", "--controls", 2).refused("num_controls: found 2, expected 3 to 64")
    run(*fit, tmp_path / "a.json", "--workers", -1).refused("workers: found -1")
    run(*fit, tmp_path / "a.json", "--order", "random").refused("--order", "random")
    run(*fit, tmp_path / "a.json", "--field", "body").refused("documents.jsonl:1", "'body'")
    run("encoding", "fit", tmp_path / "nowhere", "--name", "a", "--out", tmp_path / "a.json").refused("nowhere")
    run("encoding", "fit", "mine=", "--name", "a", "--out", tmp_path / "a.json").refused("found no path")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    run("encoding", "fit", empty, "--name", "a", "--out", tmp_path / "a.json").refused("empty.jsonl", "no document")
    empty.write_text('{"text": ""}')
    for balance in ((), ("--balance",)):
        run("encoding", "fit", empty, "--name", "a", "--out", tmp_path / "a.json", *balance).refused("no characters")
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "mine.json").write_text("kept")
    run(*fit, tmp_path / "mine.json").refused("mine.json", "--overwrite")
    assert (tmp_path / "mine.json").read_text() == "kept"
    assert run(*fit, tmp_path / "mine.json", "--overwrite").status == 0
    read_table(tmp_path / "mine.json")


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


# The proof itself runs for every encoding in tests/encoding/test_encoding_statistics.py.
@pytest.mark.parametrize(
    "name", [n if n in ("utf8", "dense-ja") else pytest.param(n, marks=pytest.mark.slow) for n in list_encodings()]
)
def test_check_proves_the_encodings_of_the_package(run, name, check_fields):
    result = run("encoding", "check", name, "--json").json
    check_fields(encoding_check.check, result)
    encoding = get_encoding(name)
    assert (result["encoding"], result["digest"], result["scalars"]) == (name, encoding.digest, 1_112_064)
    assert sum(result["words"].values()) == 1_112_064 + result["escapes"] == 1_112_192
    assert result["controls"] == len(encoding.controls)


def test_check_reads_a_table(run, documents, tmp_path):
    table = tmp_path / "mine.json"
    run("encoding", "fit", documents, "--name", "mine", "--out", table)
    status, out, _ = run("encoding", "check", table)
    assert status == 0
    assert out.startswith("mine (dense): proved")
    assert read_table(table).digest in out


def test_check_refuses(run, documents, tmp_path):
    table = tmp_path / "mine.json"
    run("encoding", "fit", documents, "--name", "mine", "--out", table)
    damaged = json.loads(table.read_text(encoding="utf-8"))
    damaged["s"], damaged["c"] = damaged["s"] - 1, damaged["c"] + 1
    table.write_text(json.dumps(damaged), encoding="utf-8")
    run("encoding", "check", table).refused("mine.json", "digest")
    run("encoding", "check", tmp_path / "no.json").refused("no.json", "No such file")
    run("encoding", "check", "utf9").refused("'utf9'")


SMALL = [f"{DATA / name}_small.jsonl.xz@train" for name in ("en", "es", "mul")]
COMMANDS = {
    "dense-ja": [f"ja={DATA / 'ja_train.jsonl.xz'}"],
    "dense-mul": [
        f"ja={DATA / 'ja_train.jsonl.xz'}",
        *SMALL,
        f"code={DATA / 'code_small.jsonl.xz'}@train",
        "--group",
        "lang",
        "--balance",
    ],
}


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name", COMMANDS)
def test_the_shipped_tables_come_from_these_commands(run, tmp_path, name):
    out = tmp_path / f"{name}.json"
    assert run("encoding", "fit", *COMMANDS[name], "--name", name, "--out", out).status == 0
    shipped = Path(encoding_fit.__file__).parents[1] / "encoding" / "tables" / out.name
    assert out.read_bytes() == shipped.read_bytes()

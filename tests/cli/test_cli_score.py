import json

import pytest

import bytelm
import bytelm.cli.score as module


def test_scores_are_those_of_the_library(run, chained_model, documents, check_fields, texts):
    result = run("score", chained_model, documents, "--law", "all", "--json").json
    check_fields(module.score, result)
    lm = bytelm.load(chained_model)
    assert [entry["law"] for entry in result["laws"]] == list(lm.laws)
    for entry in result["laws"]:
        total = lm.score(texts, law=entry["law"]).total
        assert entry["nats"] == pytest.approx(total.nats, rel=1e-6)
        assert entry["bits_per_char"] == pytest.approx(total.bits_per_char, rel=1e-6)
        assert entry["bits_per_byte"] == pytest.approx(total.bits_per_byte, rel=1e-6)
    assert (result["documents"], result["characters"]) == (5, sum(map(len, texts)))
    assert result["utf8_bytes"] == sum(len(text.encode()) for text in texts)


def test_chunks_change_nothing(run, chained_model, documents, monkeypatch):
    whole = run("score", chained_model, documents, "--json").json
    sizes = []
    really = bytelm.LanguageModel.score
    monkeypatch.setattr(
        bytelm.LanguageModel,
        "score",
        lambda lm, batch, **options: sizes.append(len(batch)) or really(lm, batch, **options),
    )
    monkeypatch.setattr(module, "_CHUNK_DOCUMENTS", 2)
    cut = run("score", chained_model, documents, "--json").json
    assert sizes == [2, 2, 1]
    assert cut["laws"][0]["nats"] == pytest.approx(whole["laws"][0]["nats"], rel=1e-6)
    assert cut["characters"] == whole["characters"]


def test_table_for_people(run, chained_model, documents):
    status, out, err = run("score", chained_model, documents, "--law", "next", "--law", "chain", "--law", "next")
    assert (status, err) == (0, "")
    header, *rows = out.splitlines()
    assert header.split()[0] == "law"
    assert [row.split()[:2] for row in rows] == [["next", "5"], ["chain", "5"]]


def test_limit(run, chained_model, documents, texts):
    result = run("score", chained_model, documents, "--limit", 2, "--json").json
    assert (result["documents"], result["characters"]) == (2, sum(map(len, texts[:2])))


def test_documents_of_several_files(run, chained_model, documents, tmp_path):
    text = tmp_path / "more.txt"
    text.write_text("月が出た。\n\n星も出た。\n", encoding="utf-8")
    result = run("score", chained_model, documents, text, "--split-blank-lines", "--json").json
    assert result["documents"] == 7


def test_refused(run, chained_model, independent_model, documents, tmp_path):
    run("score", chained_model, tmp_path / "nowhere.txt").refused("nowhere.txt")
    run("score", tmp_path / "nowhere", documents).refused("nowhere", "config.json")
    run("score", independent_model, documents, "--law", "chain").refused("--law", "independent heads", "product, next")
    run("score", chained_model, documents, "--law", "best").refused("--law", "'best'")
    run("score", chained_model, documents, "--limit", 0).refused("--limit")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    run("score", chained_model, empty).refused("empty.jsonl", "no document")
    empty.write_text('{"text": ""}\n')
    run("score", chained_model, empty).refused("empty.jsonl", "1 documents without a character")


def test_bad_lines(run, chained_model, documents):
    with documents.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"body": "月"}) + "\n")
    run("score", chained_model, documents).refused("documents.jsonl:6", "'text'")
    assert run("score", chained_model, documents, "--skip-bad-lines", "--json").json["bad_lines"] == 1


def test_a_document_that_the_model_refuses_is_named(run, chained_model, documents):
    with documents.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "終わり<|eos|>"}) + "\n")
    outcome = run("score", chained_model, documents)
    outcome.refused("documents.jsonl:6: text index 3", "<|eos|>")

import contextlib
import io
import json
import shutil

import pytest
from bpe_models import folder_of

from bytelm.benchmarks.operations import operations_per_symbol
from bytelm.cli import compare as command
from bytelm.cli import main
from bytelm.cli.compare_report import _metric
from bytelm.model import ModelConfig
from tests.cli.conftest import DOCUMENTS

TINY = ("--window", 8, "--context", 6, "--prompts", 2, "--prompt-chars", 5, "--max-new-chars", 4, "--repeats", 1)


@pytest.fixture(scope="module")
def tokens():
    """A prefix model of tokens."""
    return folder_of("gptjt")


def call(run, documents, *models, options=()):
    return run("compare", *models, "--data", documents, *TINY, *options)


@pytest.fixture(scope="module")
def result(chained_model, independent_model, tokens, tmp_path_factory):
    """The JSON of one run over models of bytes and of tokens, and the folder it wrote."""
    folder = tmp_path_factory.mktemp("compare")
    path = folder / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS), encoding="utf-8")
    models = (f"bytes={chained_model}", independent_model, f"tokens={tokens}")
    arguments = ("compare", *models, "--data", path, *TINY, "--out", folder / "a" / "out", "--threads", 1, "--json")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([str(argument) for argument in arguments]) == 0
    return json.loads(printed.getvalue().splitlines()[-1]), folder


def test_json_is_as_documented(result, texts, check_fields):
    found, folder = result
    check_fields(command.compare, found)
    assert (found["command"], found["data"], found["documents"]) == ("compare", [str(folder / "documents.jsonl")], 4)
    assert found["characters"] == sum(map(len, texts))
    assert found["utf8_bytes"] == len("".join(texts).encode())
    assert (found["window"], found["context"], found["prompts"], found["threads"]) == (8, 6, 2, 1)
    out = folder / "a" / "out"
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "pareto.png"]
    assert json.loads((out / "comparison.json").read_text(encoding="utf-8")) == found
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_rows_are_every_law_of_every_model(result, independent_model, tokens):
    found, _ = result
    other = str(independent_model)
    keys = ("model", "family", "attention", "tokenizer", "law")
    assert [tuple(row[key] for key in keys) for row in found["rows"]] == [
        ("bytes", "bytelm", "causal", "dense-ja", "chain"),
        ("bytes", "bytelm", "causal", "dense-ja", "next"),
        (other, "bytelm", "causal", "utf8", "product"),
        (other, "bytelm", "causal", "utf8", "next"),
        ("tokens", "gptj", "prefix", "bpe", "next"),
    ]
    for row in found["rows"]:
        assert row["bits_per_char"] * found["characters"] == pytest.approx(row["bits_per_byte"] * found["utf8_bytes"])
        assert row["chars_per_symbol"] == pytest.approx(found["characters"] / row["symbols"])
    of = {(row["model"], row["law"]): row for row in found["rows"]}
    assert of[other, "product"]["symbols"] == found["utf8_bytes"]
    assert of[other, "next"]["positions_per_char"] == pytest.approx(4 * of[other, "product"]["positions_per_char"])
    # 2 tensors, 1 block, 1 head of width 8, 4 bytes: 64 bytes for each position.
    assert of[other, "next"]["cache_bytes_per_1000_chars"] == pytest.approx(
        64_000 * found["utf8_bytes"] / found["characters"]
    )
    per_char = found["utf8_bytes"] / found["characters"]
    config = ModelConfig.from_dict(json.loads((independent_model / "config.json").read_text(encoding="utf-8"))["model"])
    for law in ("product", "next"):
        after = operations_per_symbol(config, law, per_char * (6 + 8 / 2))
        assert of[other, law]["operations_per_char"] == pytest.approx(per_char * after)
    assert {row["weight_bytes"] for row in found["rows"] if row["model"] == other} == {4 * config.num_parameters()}
    assert of["tokens", "next"]["source"] == str(tokens)
    assert [(s["model"], s["law"], s["draft"]) for s in found["speeds"]] == [
        *(("bytes", "chain", draft) for draft in ("none", "lookup", "auto")),
        *(("bytes", "next", draft) for draft in ("none", "heads", "lookup", "auto")),
        *((other, "product", draft) for draft in ("none", "lookup", "auto")),
        *((other, "next", draft) for draft in ("none", "heads", "lookup", "auto")),
        *(("tokens", "next", draft) for draft in ("none", "lookup", "auto")),
    ]


def test_bits_are_those_of_score_where_a_document_is_one_window(run, documents, chained_model):
    one = run("compare", chained_model, "--data", documents, "--window", 48, "--prompts", 0, "--json").json
    whole = run("score", chained_model, documents, "--law", "all", "--json").json
    assert {row["law"]: row["nats"] for row in one["rows"]} == pytest.approx(
        {row["law"]: row["nats"] for row in whole["laws"]}
    )
    cut = call(run, documents, chained_model, options=("--prompts", 0, "--json")).json
    assert cut["rows"][0]["nats"] != pytest.approx(one["rows"][0]["nats"])


def test_the_table_says_what_the_json_says(run, documents, chained_model, tokens):
    names = (f"bytes={chained_model}", f"tokens={tokens}")
    status, out, err = call(run, documents, *names, options=("--drafts", "none,heads", "--json"))
    assert (status, err, len(out.splitlines())) == (0, "", 1)
    found = json.loads(out)
    status, out, err = call(run, documents, *names, options=("--drafts", "none,heads"))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("model "))
    assert f"{found['characters']} characters ({found['utf8_bytes']} UTF-8 bytes) in 4 documents" in lines[0]
    assert len(lines) == header + 4
    for row, line in zip(found["rows"], lines[header + 1 :], strict=True):
        cells = line.split()
        law = [row["law"]] if row["attention"] == "causal" else [f"{row['law']},", row["attention"]]
        expected = [row["model"], *law, row["tokenizer"], *_metric(row["parameters"]).split(), "fp32"]
        expected += f"{_metric(row['weight_bytes'])}B".split()
        expected += [f"{row['bits_per_char']:.4f}", f"{row['bits_per_byte']:.4f}", f"{row['chars_per_symbol']:.3f}"]
        expected += f"{_metric(row['cache_bytes_per_1000_chars'])}B".split()
        expected += _metric(row["operations_per_char"]).split()
        assert cells[: len(expected)] == expected
        heads = [
            s for s in found["speeds"] if (s["model"], s["law"], s["draft"]) == (row["model"], row["law"], "heads")
        ]
        assert (cells[-1] == "–") == (not heads)
        for speed in heads:
            assert cells[-1] == f"({speed['chars_per_forward']:.2f})"
    assert max(map(len, lines)) < 160


def test_laws_can_be_chosen(run, documents, chained_model, independent_model):
    def laws(*options):
        found = call(run, documents, chained_model, independent_model, options=("--prompts", 0, "--json", *options))
        return [row["law"] for row in found.json["rows"]]

    assert laws("--law", "default") == ["chain", "product"]
    assert laws("--law", "next") == ["next", "next"]
    assert laws("--law", "next", "--law", "default") == ["chain", "next", "product", "next"]
    refused = call(run, documents, chained_model, independent_model, options=("--law", "chain"))
    refused.refused("--law: found chain, expected one of product, next for the model", str(independent_model))
    call(run, documents, chained_model, options=("--law", "last")).refused("--law: found 'last'", "default")


def test_without_prompts_there_are_no_speeds(run, documents, chained_model, tmp_path):
    status, out, _ = call(run, documents, chained_model, options=("--prompts", 0, "--out", tmp_path))
    assert status == 0
    assert "Speeds" not in out
    assert "none" not in out
    assert json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))["speeds"] == []


def test_weights_can_be_of_another_type(run, documents, chained_model, tokens):
    def rows(*options):
        return call(run, documents, chained_model, tokens, options=("--prompts", 0, "--json", *options)).json["rows"]

    for full, half in zip(rows(), rows("--dtype", "bfloat16"), strict=True):
        assert (full["dtype"], half["dtype"]) == ("float32", "bfloat16")
        assert half["weight_bytes"] == full["weight_bytes"] / 2
        assert half["cache_bytes_per_1000_chars"] == full["cache_bytes_per_1000_chars"] / 2
        assert half["operations_per_char"] == full["operations_per_char"]


def test_models_are_refused_by_name(run, documents, chained_model, tmp_path):
    call(run, documents, tmp_path / "nowhere").refused(str(tmp_path / "nowhere"))
    call(run, documents, f"a={tmp_path / 'nowhere'}").refused(str(tmp_path / "nowhere"))
    twice = call(run, documents, f"a={chained_model}", f"b={chained_model}/../{chained_model.name}")
    twice.refused("MODEL: found", chained_model.name, "twice")
    copy = shutil.copytree(chained_model, tmp_path / "copy")
    call(run, documents, f"a={chained_model}", f"a={copy}").refused("MODEL: found 'a' twice")
    call(run, documents, f"={chained_model}").refused("MODEL: found '=", "NAME=FOLDER")
    call(run, documents, "a=").refused("MODEL: found 'a='")
    odd = tmp_path / "x=y"
    odd.symlink_to(chained_model)
    assert call(run, documents, odd, options=("--prompts", 0, "--json")).json["rows"][0]["model"] == str(odd)


def test_text_is_refused_by_its_place(run, documents, chained_model, tokens, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": ""}\n', encoding="utf-8")
    call(run, empty, chained_model).refused("empty.jsonl: found no character")
    call(run, tmp_path / "none.jsonl", chained_model).refused("none.jsonl")
    long = tmp_path / "long.jsonl"
    long.write_text('{"text": "short"}\n' + json.dumps({"text": "0123456789" * 30}), encoding="utf-8")
    place = f"{long}:2: model a: characters 0 to 300 with 0 before them make 300 + 0 tokens and 1 of BOS"
    call(run, long, f"a={tokens}", options=("--window", 400)).refused(place, "context of 256")
    options = ("--prompt-chars", 500)
    call(run, documents, chained_model, options=options).refused("--prompt-chars: found 500", "at most 41")
    options = ("--max-new-chars", 30)
    call(run, documents, f"a={chained_model}", options=options).refused("model a: ", "30 new characters", "of 64")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--window", 0), ("--window", "found '0'")),
        (("--context", -1), ("--context",)),
        (("--prompts", -1), ("--prompts",)),
        (("--max-new-chars", 0), ("--max-new-chars",)),
        (("--repeats", "many"), ("--repeats", "found 'many'")),
        (("--drafts", "none,tails"), ("draft: found 'tails'",)),
        (("--dtype", "float8"), ("--dtype: found 'float8'",)),
        (("--device", "abacus"), ("--device: found 'abacus'",)),
        (("--threads", 0), ("--threads",)),
    ],
)
def test_bad_options(run, documents, chained_model, options, parts):
    call(run, documents, chained_model, options=options).refused(*parts)


def test_what_is_missing(run, documents, chained_model, tmp_path):
    run("compare", "--data", documents).refused("Missing argument 'MODEL")
    run("compare", chained_model).refused("Missing option '--data'")
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    call(run, documents, chained_model, options=("--out", file)).refused("--out", "found a file")


def test_metric_numbers_have_three_digits():
    assert [_metric(value) for value in (0.5, 999.0, 999.7, 1234.0, 5.28e6, 1e12)] == [
        *("0.5 ", "999 ", "1 k", "1.23 k", "5.28 M", "1 T")
    ]

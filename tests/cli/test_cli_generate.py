import json
import os
import re
import shutil

import pytest

import bytelm
from bytelm.cli.generate import generate as command
from bytelm.cli.prompts import split_model
from bytelm.hub.sampling_defaults import sampling_defaults
from bytelm.hub.shipped import DEFAULT_MODEL, shipped_folder

SHORT = ("--max-new-tokens", 12)


def test_result_is_that_of_the_library(run, chained_model, check_fields):
    sampling = ("--do-sample", "--temperature", 0.8, "--top-k", 50, "--top-p", 0.9, "--seed", 3)
    outcome = run("generate", chained_model, "朝の", "雨", *SHORT, *sampling, "--json")
    result = outcome.json
    check_fields(command, result)
    expected = bytelm.load(chained_model).generate(
        ["朝の", "雨"], max_new_tokens=12, do_sample=True, temperature=0.8, top_k=50, top_p=0.9, seed=3
    )
    assert result["texts"] == expected.texts
    assert (result["law"], result["draft"], result["seed"]) == ("chain", "auto", 3)
    assert result["symbols"] == expected.stats.symbols
    assert result["nats"] == pytest.approx([float(n.sum()) for n in expected.nats])
    assert result["characters"] == sum(map(len, expected.texts))
    assert outcome.out.count("\n") == 1
    assert "chars/forward" in outcome.err


def test_text_for_people(run, chained_model):
    lm = bytelm.load(chained_model)
    one = run("generate", chained_model, "朝の", *SHORT)
    assert (one.status, one.out) == (0, lm.generate(["朝の"], max_new_tokens=12).texts[0] + "\n")
    two = run("generate", chained_model, "朝の", "雨", *SHORT)
    first, second = lm.generate(["朝の", "雨"], max_new_tokens=12).texts
    assert two.out == f"--- PROMPT 1: 朝の\n{first}\n--- PROMPT 2: 雨\n{second}\n"


def test_a_draft_changes_no_text(run, chained_model):
    options = ("generate", chained_model, "朝", "駅前の", "--law", "next", "--do-sample", *SHORT, "--json")
    drafted, plain = run(*options, "--draft", "heads").json, run(*options, "--draft", "none").json
    assert drafted["texts"] == plain["texts"]
    assert (drafted["draft"], plain["draft"], plain["drafted"]) == ("heads", "none", 0)
    assert drafted["drafted"] > 0


def test_prompts_from_files(run, chained_model, tmp_path):
    lines = tmp_path / "prompts.txt"
    lines.write_bytes("朝の\r\n\n雨\n".encode("utf-8-sig"))
    jsonl = tmp_path / "prompts.jsonl"
    jsonl.write_text('{"text": "朝の"}\n{"text": "雨"}\n', encoding="utf-8")
    for given in (("--prompts-file", lines), ("--prompts-file", jsonl)):
        result = run("generate", chained_model, *given, *SHORT, "--json").json
        assert result["prompts"] == ["朝の", "雨"]
    for given in ((), ("--prompts-file", "-")):
        result = run("generate", chained_model, *given, *SHORT, "--json", stdin="朝の\n雨\n".encode()).json
        assert result["prompts"] == ["朝の", "雨"]


def test_stream_adds_up_to_the_text(run, chained_model):
    options = ("generate", chained_model, "朝の", "--max-new-tokens", 40, "--do-sample")
    plain, streamed = run(*options), run(*options, "--stream")
    assert streamed.out == plain.out
    with_json = run(*options, "--stream", "--json")
    text = with_json.json["texts"][0]
    assert with_json.out.startswith(text + "\n")


def test_stop(run, chained_model):
    options = ("generate", chained_model, "朝の", "--max-new-tokens", 40, "--do-sample", "--json")
    whole = run(*options).json["texts"][0]
    stop = next(c for c in whole[4:] if c.isprintable() and c != "\ufffd")
    result = run(*options, "--stop", stop).json
    assert result["finish"] == ["stop"]
    assert result["texts"][0] == whole[: whole.index(stop) + 1]


def test_controls_in_prompts(run, chained_model):
    options = ("generate", chained_model, "月<|eos|>", *SHORT)
    run(*options).refused("PROMPT 1: text index 1", "<|eos|>")
    assert run(*options, "--allow-controls").status == 0


def test_sampling_options_without_sampling(run, chained_model):
    outcome = run("generate", chained_model, "月", *SHORT, "--temperature", 0.5)
    assert outcome.status == 0
    assert "warning: --temperature without --do-sample" in outcome.err


def test_prompts_that_are_refused(run, chained_model, tmp_path):
    generate = ("generate", chained_model)
    run(*generate, "月", "月\udce6").refused("PROMPT 2: text index 1", "the byte e6, not UTF-8")
    run(*generate, os.fsdecode(b"\xff")).refused("PROMPT 1", "the byte ff")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "ok"}\n{"text": "\\ud83d"}\n', encoding="utf-8")
    run(*generate, "--prompts-file", bad).refused("bad.jsonl:2", "U+D83D")
    (tmp_path / "bad.txt").write_bytes(b"ok\n\xff\n")
    run(*generate, "--prompts-file", tmp_path / "bad.txt").refused("bad.txt:2", "bytes ff", "UTF-8")
    run(*generate, stdin=b"\n\n").refused("standard input", "no prompt")
    run(*generate, "月", "--prompts-file", bad).refused("PROMPT and --prompts-file")
    run(*generate, "--prompts-file", tmp_path / "nowhere.txt").refused("nowhere.txt: No such file")
    run(*generate, "月", "火", "--stream").refused("--stream: found 2 texts")
    run(*generate, "月", "--stop", "\udcff").refused("--stop: text index 0")
    run(*generate, "月", "--stop", "").refused("stop", "empty")


def test_options_reach_the_library(run, chained_model):
    lm = bytelm.load(chained_model)
    options = {
        "min_p": 0.05,
        "typical_p": 0.9,
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.3,
        "presence_penalty": 0.5,
        "no_repeat_ngram_size": 3,
        "max_new_chars": 4,
    }
    given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    flags = ("--do-sample", "--valid-text", "--num-return-sequences", 2, "--min-new-tokens", 3, "--draft", "lookup")
    result = run("generate", chained_model, "朝の", *SHORT, *given, *flags, "--json").json
    expected = lm.generate(
        ["朝の"],
        max_new_tokens=12,
        do_sample=True,
        valid_text=True,
        num_return_sequences=2,
        min_new_tokens=3,
        **options,
    )
    assert result["texts"] == expected.texts
    assert len(expected.texts) == 2
    assert max(map(len, expected.texts)) <= 4


def test_a_small_model_drafts(run, chained_model):
    options = ("generate", chained_model, "朝", "--law", "next", *SHORT, "--json")
    drafted, plain = run(*options, "--draft", chained_model).json, run(*options, "--draft", "none").json
    assert drafted["texts"] == plain["texts"]
    assert drafted["by_drafter"]["model"][0] == drafted["by_drafter"]["model"][1] > 0
    assert drafted["acceptance_at"][0] == 1.0


def test_pattern(run, chained_model):
    text = run("generate", chained_model, "朝", "--pattern", "[0-9]{4}年", *SHORT, "--json").json["texts"][0]
    assert re.fullmatch("[0-9]{4}年", text)
    run("generate", chained_model, "朝", "--pattern", "(", *SHORT).refused("(")


def test_trace_marks_forwards_and_drafts(run, chained_model):
    outcome = run("generate", chained_model, "朝", "--law", "next", "--draft", chained_model, "--trace", *SHORT)
    text = run("generate", chained_model, "朝", "--law", "next", *SHORT).out.strip()
    assert outcome.out.startswith("|")
    assert "[model]" in outcome.out
    plain = outcome.out.strip().replace("|", "").replace("[model]", "")
    assert plain.replace("<", "") == text.replace("|", "").replace("[model]", "").replace("<", "")


def test_lossy_rules_say_so(run, chained_model):
    options = ("generate", chained_model, "朝", "--law", "next", "--do-sample", *SHORT, "--json", "--verify")
    lossy = run(*options, "typical")
    assert (lossy.json["exact"], lossy.json["verify"]) == (False, "typical")
    assert "(lossy)" in lossy.err
    assert run(*options, "rejection").json["exact"] is True
    run(*options, "hope").refused("verify: found 'hope'", "exact, rejection, typical")


def test_prompt_longer_than_the_context(run, chained_model, tmp_path):
    lines = tmp_path / "prompts.txt"
    lines.write_text("月\n" + "月" * 60 + "\n", encoding="utf-8")
    outcome = run("generate", chained_model, "--prompts-file", lines, *SHORT)
    outcome.refused("prompts.txt:2: ", "context of 64 bytes")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--law", "product"), ("law 'product'", "chained heads", "chain, next")),
        (("--law", "nest"), ("law 'nest'",)),
        (("--draft", "heads"), ("draft 'heads'", "no heads to draft with")),
        (("--draft", "big"), ("--draft: found 'big'", "auto, none, heads, lookup, or the folder")),
        (("--max-new-tokens", "0"), ("found 0",)),
        (("--do-sample", "--temperature", "-1"), ("temperature: found -1.0",)),
        (("--do-sample", "--top-k", "0"), ("top_k: found 0",)),
        (("--do-sample", "--top-p", "1.5"), ("top_p: found 1.5",)),
        (("--seed", "-1"), ("seed: found -1",)),
        (("--device", "toaster"), ("--device: found 'toaster'",)),
        (("--device", "meta"), ("--device: found 'meta'",)),
        (("--max-new-tokens", "many"), ("--max-new-tokens", "many")),
    ],
)
def test_options_that_are_refused(run, chained_model, options, parts):
    run("generate", chained_model, "月", *SHORT, *options).refused(*parts)


def test_chain_on_independent_heads(run, independent_model):
    for name in ("generate", "score"):
        path = independent_model / "config.json" if name == "score" else "月"
        outcome = run(name, independent_model, path, "--law", "chain")
        assert outcome.status == 2
    run("generate", independent_model, "月", "--law", "chain").refused("law 'chain'", "independent heads", "product")


def test_checkpoints_that_are_refused(run, chained_model, tmp_path):
    run("generate", tmp_path / "nowhere", "月").refused("nowhere", "config.json")
    run("generate", tmp_path, "月").refused("config.json", "no such file")
    config = json.loads((chained_model / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 99}), encoding="utf-8")
    run("generate", tmp_path, "月").refused("config.json", "99", "expected 1")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("encoding.json", "model.safetensors"):
        run("generate", tmp_path, "月").refused(name)
        (tmp_path / name).write_bytes((chained_model / name).read_bytes())
    assert run("generate", tmp_path, "月", *SHORT).status == 0
    (tmp_path / "model.safetensors").write_bytes((chained_model / "model.safetensors").read_bytes()[:-1])
    run("generate", tmp_path, "月").refused("model.safetensors")


@pytest.mark.parametrize(
    ("arguments", "model", "expected"),
    [
        ([], None, (DEFAULT_MODEL, [])),
        (["吾輩は"], None, (DEFAULT_MODEL, ["吾輩は"])),
        (["吾輩は", "猫"], None, (DEFAULT_MODEL, ["吾輩は", "猫"])),
        (["two words"], None, (DEFAULT_MODEL, ["two words"])),
        (["runs/model", "猫"], None, ("runs/model", ["猫"])),
        (["mistyped", "猫"], None, ("mistyped", ["猫"])),
        (["owner/name-1.3b"], None, ("owner/name-1.3b", [])),
        (["フォルダ", "猫"], None, ("フォルダ", ["猫"])),
        (["mistyped", "猫"], "m", ("m", ["mistyped", "猫"])),
        (["あ" * 5000], None, (DEFAULT_MODEL, ["あ" * 5000])),
        (["nul\0"], None, (DEFAULT_MODEL, ["nul\0"])),
    ],
)
def test_a_first_argument_is_a_model_or_a_text(arguments, model, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "フォルダ").mkdir()
    assert split_model(arguments, model) == expected


def test_an_option_names_the_model(run, chained_model):
    by_place = run("generate", chained_model, "two", *SHORT, "--json").json
    by_option = run("generate", "two", "--model", chained_model, *SHORT, "--json").json
    changing = ("chars_per_second", "seconds", "seconds_by_part")
    assert {k: v for k, v in by_place.items() if k not in changing} == {
        k: v for k, v in by_option.items() if k not in changing
    }
    run("generate", "two", "月", *SHORT).refused("two: no such folder")


def test_sampling_of_the_folder_unless_an_option_says_otherwise(run, chained_model, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(chained_model, own)
    (own / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.5, "top_k": 9, "top_p": null}')

    def texts(model, *options):
        return run("generate", model, "朝の", *SHORT, "--seed", 3, "--json", *options).json["texts"]

    sampled = texts(chained_model, "--do-sample", "--temperature", 0.5, "--top-k", 9)
    greedy = texts(chained_model)
    assert texts(own) == sampled != greedy
    assert texts(own, "--greedy") == texts(own, "--temperature", 0.5) == greedy
    assert texts(own, "--do-sample") == texts(chained_model, "--do-sample") != sampled
    err = run("generate", own, "朝", *SHORT).err
    assert "sampled as generation_config.json says (temperature 0.5, top_k 9)" in err


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"do_sample": true, "top_p": "0.9"}', ("top_p: found '0.9', expected a number",)),
        ('{"do_sample": true, "top_p": 1.5}', ("top_p: found 1.5",)),
        ("[]", ("found a list, expected a JSON object",)),
    ],
)
def test_sampling_of_the_folder_that_is_refused(run, chained_model, tmp_path, text, parts):
    own = tmp_path / "own"
    shutil.copytree(chained_model, own)
    (own / "generation_config.json").write_text(text)
    run("generate", own, "朝の", *SHORT).refused(*parts)


def test_a_folder_that_does_not_ask_for_sampling_is_greedy(tmp_path):
    assert sampling_defaults(tmp_path) == {}
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.5, "do_sample": null}')
    assert sampling_defaults(tmp_path) == {}


@pytest.mark.skipif(shipped_folder(DEFAULT_MODEL) is not None, reason="the package has its model")
def test_a_package_without_its_model_says_so(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("generate", "朝の").refused("MODEL: found none", "without bytelm-ja-tiny")

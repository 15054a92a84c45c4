"""Prompts of the kinds that model cards show, from the command line, on toy checkpoints of the GPT-J family."""

import pytest
from bpe_models import copy_of, folder_of

import bytelm

CLASSIFICATION = """Say whether a remark about a journey is glad or sorry.
Remark: The ferry was late and the rain came in.
Mood: sorry
Remark: We saw the bay at sunrise.
Mood:"""
JAPANESE = ["川沿いの町を三つ挙げる:\n1. 北の港町\n2. ", "質問: 川の水はなぜ冷たいのですか。\n答え: "]
SPANISH = "El niño subió a la montaña y desde allí"


@pytest.mark.parametrize("attention", [None, "causal", "prefix"])
def test_a_classification_prompt(run, attention):
    """One line of an answer, after a prompt that is read both ways."""
    args = [] if attention is None else ["--attention", attention]
    done = run("generate", str(folder_of("gptjt")), CLASSIFICATION, "--max-new-tokens", "10", "--json", *args)
    chosen = attention or "prefix"
    assert (done.json["family"], done.json["attention"], done.json["law"]) == ("gptj", chosen, "next")
    expected = bytelm.load(folder_of("gptjt")).generate([CLASSIFICATION], max_new_tokens=10, attention=chosen)
    assert done.json["texts"] == expected.texts
    stopped = run(
        "generate",
        str(folder_of("gptjt")),
        CLASSIFICATION,
        "--pattern",
        " (glad|sorry)",
        "--max-new-tokens",
        "9",
        *args,
    )
    assert stopped.out.strip() in ("glad", "sorry")


@pytest.mark.parametrize("name", ["gptj", "gpt2", "llama", "btlm"])
def test_sampled_prompts(run, name, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join([SPANISH, JAPANESE[1].replace("\n", " ")]), encoding="utf-8")
    options = ["--do-sample", "--temperature", "0.8", "--top-p", "0.95", "--seed", "3", "--max-new-tokens", "20"]
    plain = run("generate", str(folder_of(name)), *JAPANESE, "--draft", "none", *options, "--json").json
    drafted = run(
        "generate", str(folder_of(name)), *JAPANESE, "--draft", str(folder_of("gpt2")), *options, "--json"
    ).json
    assert plain["texts"] == drafted["texts"]
    assert plain["finish"] == ["length", "length"]
    assert (plain["symbols"], plain["encoding"]) == (40, "bpe")
    streamed = run("generate", str(folder_of(name)), JAPANESE[0], "--stream", "--valid-text", *options)
    alone = run("generate", str(folder_of(name)), JAPANESE[0], "--valid-text", *options)
    assert streamed.out == alone.out
    assert run("generate", str(folder_of(name)), "--prompts-file", str(file), "--trace").status == 0


def test_scores(run, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(SPANISH, encoding="utf-8")
    for dtype, near in ((None, 1e-6), ("bfloat16", 0.05)):
        args = [] if dtype is None else ["--dtype", dtype]
        found = run("score", str(folder_of("gptjt")), str(file), "--json", *args).json
        assert (found["family"], found["attention"], found["encoding"]) == ("gptj", "causal", "bpe")
        expected = bytelm.load(folder_of("gptjt")).score([SPANISH])[0]
        assert found["laws"][0]["bits_per_char"] == pytest.approx(expected.bits_per_char, rel=near)


def test_bad_input(run, tmp_path):
    folder = str(folder_of("gptj"))
    broken = copy_of("gptj", tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    bare = copy_of("gptj", tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    for args, message in [
        (["generate", folder, "a", "--attention", "both"], "attention 'both': expected causal or prefix"),
        (["generate", folder, "a", "--dtype", "int4"], "--dtype: found 'int4', expected one of float32,"),
        (["generate", folder, "a", "--law", "chain"], "law 'chain': this model has lm heads, expected one of next"),
        (["generate", "nobody/nothing", "a"], "nobody/nothing: no such folder, and the hub gives no model of this id"),
        (["generate", str(broken), "a"], f"{weights}: "),
        (["generate", str(bare), "a"], "tokenizer.json"),
        (["generate", folder, "水" * 200], "PROMPT 1: "),
        (["score", folder, str(tmp_path / "none.txt")], "none.txt: "),
        (["generate", folder, "a", "--stop", ""], "stop 0: found an empty string"),
        (["generate", folder, "a", "--max-new-tokens", str(10**6)], "expected at most the model's context"),
    ]:
        run(*args).refused(message)

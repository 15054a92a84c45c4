import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bytelm
import bytelm.cli.eval as module
from bytelm.evaluation import harness

pytest.importorskip("lm_eval", reason="the extra eval is not installed")

# The harness and what it imports warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="session")
def model(tiny_config, tmp_path_factory):
    """A context that holds the prompts of our tasks."""
    from dataclasses import replace

    from bytelm.encoding import get_encoding
    from bytelm.hub import save_checkpoint
    from bytelm.model import build_model

    folder = tmp_path_factory.mktemp("eval") / "model"
    save_checkpoint(folder, build_model(replace(tiny_config, context=1024), seed=1), get_encoding("dense-ja"))
    return folder


def test_bits_per_byte_are_those_of_score(run, model, check_fields):
    result = run("eval", "--tasks", "bytelm_text_ja,bytelm_text_en", "--model", model, "--law", "next", "--json").json
    check_fields(module.evaluate, result)
    assert (result["law"], result["encoding"], result["requests"]) == ("next", "dense-ja", 24)
    for task in ("bytelm_text_ja", "bytelm_text_en"):
        scored = run("score", model, harness.TASKS / f"{task}.jsonl", "--law", "next", "--json").json["laws"][0]
        found = {row["metric"]: row["value"] for row in result["results"] if row["task"] == task}
        assert found["bits_per_byte"] == pytest.approx(scored["bits_per_byte"], rel=1e-6)
        assert found["byte_perplexity"] == pytest.approx(2 ** scored["bits_per_byte"], rel=1e-6)


def test_table_files_and_options(run, model, tmp_path):
    out = tmp_path / "out"
    status, text, err = run(
        *("eval", "--tasks", "bytelm_jnli", "--tasks", "bytelm_facts_ja", "--model", model, "--limit", 2),
        *("--num-fewshot", 1, "--gen-kwargs", "max_gen_toks=3", "--out", out, "--cache", tmp_path / "cache"),
    )
    assert (status, err) == (0, "")
    header, *rows = text.splitlines()
    assert header.split() == ["task", "items", "shots", "metric", "value", "stderr", "better"]
    assert [row.split()[:4] for row in rows] == [
        ["bytelm_jnli", "2", "1", "acc"],
        ["bytelm_facts_ja", "2", "1", "exact_match"],
    ]
    results = json.loads((out / "results.json").read_text())
    assert results["harness"]["config"]["law"] == "chain"
    samples = [json.loads(line) for line in (out / "samples_bytelm_jnli.jsonl").read_text().splitlines()]
    assert [sample["doc"]["label"] for sample in samples] == ["entailment", "contradiction"]
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".db"]


def test_contexts_that_are_cut_are_told(run, chained_model):
    """A context of 64 bytes holds no prompt of five choices."""
    outcome = run("eval", "--tasks", "bytelm_jcommonsenseqa", "--model", chained_model, "--limit", 2, "--json")
    assert outcome.json["truncated_contexts"] == 10
    assert "warning: 10 of 10 contexts were cut at their left to fit 64 symbols" in outcome.err


def test_refused(run, model, tmp_path):
    ours = ("eval", "--model", model, "--tasks")
    run(*ours, "bytelm_pika").refused("tasks: found 'bytelm_pika'", "bytelm_piqa")
    run(*ours, ",").refused("--tasks: found none")
    run("eval", "--tasks", "bytelm_piqa", "--model", tmp_path / "nowhere").refused("nowhere")
    run(*ours, "bytelm_piqa", "--law", "best").refused("'best'")
    run(*ours, "bytelm_piqa", "--limit", 0).refused("limit: found 0")
    run(*ours, "bytelm_piqa", "--windows", "all").refused("windows: found 'all'")
    run(*ours, "bytelm_piqa", "--include-path", tmp_path / "none").refused("none: found no task")
    run(*ours, "bytelm_piqa", "--data", "bytelm_piqa").refused("--data: found 'bytelm_piqa', expected TASK=FILE")
    run(*ours, "bytelm_piqa", "--data", "bytelm_piqa=none.jsonl").refused("--data: none.jsonl: no such file")
    run(*ours, "bytelm_facts_ja", "--gen-kwargs", "high").refused("--gen-kwargs: found 'high'")
    run(*ours, "bytelm_facts_ja", "--gen-kwargs", "num_beams=3").refused("option num_beams: unknown")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"goal": "a"\n')
    run(*ours, "bytelm_piqa", "--data", f"bytelm_piqa={broken}").refused("broken.jsonl:1: found no JSON")


@pytest.mark.slow
def test_the_harness_finds_the_model_through_our_door(model):
    """``python -m bytelm.evaluation.harness`` is lm_eval's own command line."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bytelm.evaluation.harness", "run", "--model", "bytelm"),
            *("--model_args", f"path={model},law=next", "--include_path", str(harness.TASKS)),
            *("--tasks", "bytelm_piqa", "--limit", "2"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(bytelm.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert "bytelm_piqa" in done.stdout or "PIQA-style" in done.stdout

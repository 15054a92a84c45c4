import json
import math
import sys

import pytest

from bytelm.cli import bench_decode as command
from bytelm.cli.bench_report import format_speeds

TINY = ("--max-new-tokens", 3, "--repeats", 1, "--batches", "1,2", "--temperatures", "0,1")


@pytest.fixture(autouse=True)
def _small_buffer(monkeypatch):
    monkeypatch.setattr("bytelm.benchmarks.bandwidth.LARGE_BUFFER", 2**20)


@pytest.fixture(scope="module")
def result(chained_model, tmp_path_factory):
    """The JSON of one run, and its picture."""
    import contextlib
    import io

    from bytelm.benchmarks import bandwidth
    from bytelm.cli import main

    folder = tmp_path_factory.mktemp("bench")
    prompts = folder / "prompts.txt"
    prompts.write_text("山\n", encoding="utf-8")
    arguments = ["bench", "decode", str(chained_model), "--prompts-file", str(prompts), *map(str, TINY)]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(bandwidth, "LARGE_BUFFER", 2**20)
        assert (
            main(
                [
                    *arguments,
                    "--drafts",
                    "none,heads,lookup",
                    "--threads",
                    "1",
                    "--plot",
                    str(folder / "speed.png"),
                    "--json",
                ]
            )
            == 0
        )
    return json.loads(printed.getvalue().splitlines()[-1]), folder / "speed.png"


def test_json_is_as_documented(result, chained_model, check_fields):
    found, png = result
    pytest.importorskip("transformers")
    check_fields(command.decode, found)
    assert (found["command"], found["model"], found["plot"]) == ("bench decode", str(chained_model), str(png))
    assert (found["dtype"], found["threads"], found["device"], found["prompts"]) == ("float32", 1, "cpu", 1)
    assert found["memory"]["num_bytes"] == 2**20
    assert png.read_bytes().startswith(b"\x89PNG")


def test_every_way_at_every_batch_and_temperature(result):
    found, _ = result
    ways = [("next", "none"), ("next", "heads"), ("next", "lookup"), ("chain", "none"), ("chain", "lookup")]
    assert [(s["batch"], s["temperature"], s["law"], s["draft"]) for s in found["speeds"]] == [
        (batch, temperature, *way) for batch in (1, 2) for temperature in (0.0, 1.0) for way in ways
    ]
    for speed in (*found["speeds"], *found["costs"]):
        for name in ("memory", "cache"):
            share = speed["bytes_read_per_second"] / found[name]["bytes_per_second"]
            assert speed[f"{name}_share"] == pytest.approx(share)
    assert {cost["law"] for cost in found["costs"]} == {"chain", "next"}


def test_the_table_for_people(run, chained_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    options = ("--laws", "chain", "--drafts", "none", "--batches", "1", "--temperatures", "0.7", "--dtype", "bfloat16")
    status, out, err = run(
        "bench", "decode", chained_model, *TINY, *options, "--prompts-file", "-", stdin="山\n".encode()
    )
    assert (status, err) == (0, "")
    assert "bfloat16 on cpu, 1 thread, not compiled" in out
    assert "not measured: transformers: cannot be imported" in out
    ways = [line.split()[:4] for line in out.splitlines() if line.startswith("0.7")]
    assert ways == [["0.7", "1", "next", "none"], ["0.7", "1", "chain", "none"]]
    assert "of memory" in out
    assert "of cache" in out
    assert max(map(len, out.splitlines())) < 160


def test_a_preset_has_random_weights(run):
    options = (
        "--preset",
        "tiny",
        "--laws",
        "next",
        "--drafts",
        "none",
        "--batches",
        "1",
        "--temperatures",
        "1",
        "--no-rivals",
    )
    found = run("bench", "decode", *TINY, *options, "--json").json
    assert (found["model"], found["encoding"], found["prompts"]) == ("random tiny", "dense-ja", 3)
    assert (found["rivals"], found["skipped"], found["plot"]) == ([], [], None)


TOKENS = ("--preset", "gptj-toy", "--max-new-tokens", 3, "--repeats", 1, "--batches", 1, "--temperatures", 0)


def test_a_preset_of_tokens_takes_the_same_path(run, check_fields):
    pytest.importorskip("transformers")
    found = run("bench", "decode", *TOKENS, "--random-weights", "--drafts", "none,lookup", "--json").json
    check_fields(command.decode, found)
    assert (found["model"], found["encoding"], found["dtype"]) == ("random gptj-toy", "bpe", "float32")
    assert (found["parameters"], found["rival"], found["skipped"]) == (165_376, "GPT-J on the same weights", [])
    assert [(s["law"], s["draft"]) for s in found["speeds"]] == [("next", "none"), ("next", "lookup")]
    assert [r["name"] for r in found["rivals"]] == [
        "bytelm next", "transformers", "transformers static", "transformers lookup"
    ]  # fmt: skip
    assert [(c["positions"], c["heads"]) for c in found["costs"]] == [(n, h) for h in (0, 1) for n in (1, 2, 4, 8, 16)]
    assert found["int8"] is None


def test_weights_in_int8_are_measured_beside_the_others(run):
    pytest.importorskip("torchao")
    found = run(
        "bench", "decode", *TOKENS, "--drafts", "none", "--no-rivals", "--dtype", "bf16", "--int8", "--json"
    ).json
    assert found["dtype"] == "bfloat16"
    int8 = found["int8"]
    for layers in (found, int8):
        assert [(cost["through"], cost["rows"]) for cost in layers["linear"]] == [
            (through, rows) for through in ("bytelm", "torch") for rows in (1, 2, 4, 8)
        ]
        assert layers["step"]["memory_share"] == pytest.approx(
            layers["step"]["bytes_read_per_second"] / found["memory"]["bytes_per_second"]
        )
    assert found["step"]["ratio"] == 1.0
    assert int8["step"]["ratio"] > 0
    half = int8["step"]["bytes_read_per_second"] * int8["step"]["seconds"]
    assert 2 * half == pytest.approx(found["step"]["bytes_read_per_second"] * found["step"]["seconds"])


def test_a_large_model_is_measured_less(monkeypatch):
    seen = []

    def measure(lm, plan):
        seen.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure", measure)
    for limit in (command._LARGE_PARAMETERS, 100_000):
        monkeypatch.setattr(command, "_LARGE_PARAMETERS", limit)
        with pytest.raises(KeyboardInterrupt):
            command.decode(preset="gptj-toy", batches=None, drafts=None, max_new_tokens=None)
    usual, large = seen
    assert (usual.batches, usual.temperatures, usual.max_new_tokens) == ([1, 8, 32], [0.0, 0.7, 1.0], 160)
    assert [way.draft for way in usual.ways] == ["none", "lookup", "auto"]
    assert len(usual.prompts) == 3
    assert (large.batches, large.temperatures, large.max_new_tokens) == ([1], [0.0], 16)
    assert ([way.draft for way in large.ways], large.prompts) == (["none"], ["A"])


def test_the_table_tells_of_layers_and_of_int8(run):
    pytest.importorskip("torchao")
    out = run("bench", "decode", *TOKENS, "--drafts", "none", "--no-rivals", "--dtype", "bfloat16", "--int8").out
    assert out.count("linear layers alone  rows") == 2
    assert out.count("A plain greedy step at batch 1: ") == 2
    assert "Weights in int8, " in out
    assert max(map(len, out.splitlines())) < 160


def test_speeds_without_roofs_have_no_shares():
    from bytelm.benchmarks import DecodingSpeed

    speed = DecodingSpeed("next", "heads", 8, 0.7, 1234.5, 3000.0, 90.0, 0.5, 2.0, 0.01, 1e9, (0.5, 1.0, 1, 1, 1), 1.5)
    header, row = format_speeds([speed]).splitlines()
    assert "of memory" not in header
    assert " ".join(row.split()) == "0.7 8 next heads 1,234 3,000 90 2.000 10 1.50 0.50 1.00 1.00 1.00 …"
    nothing = DecodingSpeed("next", "none", 1, 0.0, 0.0, 0.0, 90.0, 0.0, math.inf, 0.01, 1e9, (), math.nan)
    assert format_speeds([nothing]).splitlines()[1].split()[-3:] == ["inf", "10", "nan"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("MODEL: found none", "--preset")),
        (("MODEL", "--preset", "tiny"), ("MODEL: found one and --preset",)),
        (("--preset", "huge"), ("preset: found 'huge'", "1.3b")),
        (("--preset", "tiny", "--batches", "1,x"), ("--batches: found '1,x'", "whole numbers")),
        (("--preset", "tiny", "--batches", "0"), ("--batches: found '0'",)),
        (("--preset", "tiny", "--batches", ""), ("--batches: found ''",)),
        (("--preset", "tiny", "--temperatures", "0,-1"), ("--temperatures: found '0,-1'",)),
        (("--preset", "tiny", "--temperatures", "nan"), ("--temperatures: found 'nan'",)),
        (("--preset", "tiny", "--temperatures", "inf"), ("--temperatures: found 'inf'",)),
        (("--preset", "tiny", "--laws", "next,last"), ("law 'last'",)),
        (("--preset", "tiny", "--drafts", "tails"), ("draft: found 'tails'",)),
        (("--preset", "tiny", "--dtype", "float8"), ("--dtype: found 'float8'",)),
        (("--preset", "tiny", "--drafts", ""), ("draft: found ''",)),
        (("MODEL", "--random-weights"), ("--random-weights: found no --preset",)),
        (("--preset", "tiny", "--device", "abacus"), ("--device: found 'abacus'",)),
        (("--preset", "tiny", "--threads", "0"), ("--threads",)),
        (("--preset", "tiny", "--repeats", "0"), ("--repeats",)),
        (("--preset", "tiny", "--plot", "nowhere/speed.png"), ("nowhere/speed.png", "no folder")),
        (("nowhere",), ("nowhere",)),
    ],
)
def test_bench_refuses(run, chained_model, arguments, parts):
    run("bench", "decode", *(chained_model if a == "MODEL" else a for a in arguments)).refused(*parts)


def test_the_group_alone_lists_its_commands(run):
    run("bench").refused("Missing command")

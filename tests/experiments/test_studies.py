"""The studies: grids, the command at its smallest size, and READMEs that say what results.json says."""

import fnmatch
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from study import grid, render, speeds, team
from study.__main__ import main
from study.cells import is_trained, model_of, plan_cell, train_cell
from study.figures import lookup, means, with_derived
from study.grid import SIZES, Study, find_studies, merge, read_study
from study.runner import Place, choose
from study.texts import Symbols, Workshop

from bytelm import load
from bytelm.benchmarks.equal_cost import operations_per_character
from bytelm.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and torch give advice

STUDIES = find_studies()
BY_NUMBER = pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.number)


@BY_NUMBER
def test_the_readme_says_what_was_found(study):
    """Figures are never typed: README.md is the template and results.json, and nothing else."""
    assert (study.folder / "README.md").read_text(encoding="utf-8") == render.readme_of(study)


def test_the_index_says_what_was_found():
    assert (grid.STUDIES / "README.md").read_text(encoding="utf-8") == render.index_text()
    assert [study.number for study in STUDIES] == [f"{i:02}" for i in range(1, 8)]


@BY_NUMBER
@pytest.mark.parametrize("size", SIZES)
def test_every_cell_is_a_model_and_has_a_name_of_its_own(study, size):
    cells = study.cells(size)
    assert len({cell.name for cell in cells}) == len(cells) > 0
    for cell in cells:
        bpe = cell.settings["study"].get("bpe")
        model_of(cell.settings, Symbols(1.2, {}, bpe))
        if cell.comparison == "operations":
            assert study.reference(size, cell) is not None


@BY_NUMBER
def test_placeholders_name_what_the_grid_has(study):
    """A misspelt group would say for ever that it was not run."""
    names = {cell.group for size in SIZES for cell in study.cells(size)}
    template = (study.folder / render.TEMPLATE).read_text(encoding="utf-8")
    for found in render._PLACEHOLDER.findall(template + study.config.get("learned", "")):
        kind, *args = (" ".join(part.split()) for part in found.split("|"))
        if kind in ("value", "ratio", "difference"):
            assert set(args[: 1 + (kind != "value")]) <= names
        for pattern in {"least": [f"{args[0]}*"] if args else [], "undercut": args[:2]}.get(kind, []):
            assert fnmatch.filter(names, pattern)


def test_merging_replaces_values_and_takes_away():
    first = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert merge(first, {"a": {"b": None, "c": {"f": 4}}, "e": 5}) == {"a": {"c": {"d": 2, "f": 4}}, "e": 5}
    assert first == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


def test_cells_are_left_out_by_what_they_have_and_have_not(tmp_path):
    axes = {"model": {"a": {}, "b": {}, "c": {}}, "width": {"W1": {}, "W2": {}}}
    config = {
        "axes": axes,
        "leave_out": [{"model": ["a", "b"], "width": {"not": "W1"}}, {"model": {"not": ["a", "b"]}, "width": "W1"}],
    }
    cells = Study(tmp_path, config, {"sizes": {"cpu": {"study": {"seeds": [0]}}}}).cells("cpu")
    assert [cell.group for cell in cells] == ["plain/a+W1", "plain/b+W1", "plain/c+W2"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


def run(work, number, *only, more=()):
    args = ["run", number, "--size", "smoke", "--out", str(work / "out"), "--results", str(work / "results")]
    status = main([*args, *more, *(part for cell in only for part in ("--only", cell))])
    assert status == 0
    file = work / "results" / read_study(number).folder.name / "results.json"
    return json.loads(file.read_text(encoding="utf-8"))["smoke"]["cells"]


def test_cells_are_trained_measured_kept_and_rendered(work, capsys):
    """Two cells at equal operations and at equal time; a second run finds them and trains nothing."""
    wanted = "operations/utf8+independent", "time/dense-ja+chained"
    found = run(work, "01", *wanted)
    assert set(found) == {f"{name}/seed0" for name in wanted}
    cell = found["operations/utf8+independent/seed0"]
    assert set(cell["laws"]) == set(cell["undecodable"]) == {"product", "next"}
    assert cell["best"]["bits_per_char"] == min(law["bits_per_char"] for law in cell["laws"].values())
    assert cell["plan"]["width"] != 32
    assert cell["disk_bytes"] > cell["weight_bytes"]
    assert found["time/dense-ja+chained/seed0"]["plan"]["steps"] >= 1
    kept = (work / "out" / "smoke" / "01_encoding_heads_law" / wanted[0] / "seed0" / "cell.json").stat().st_mtime_ns
    capsys.readouterr()
    assert run(work, "01", *wanted) == found
    assert "bits per character" not in capsys.readouterr().out
    path = work / "out" / "smoke" / "01_encoding_heads_law" / wanted[0] / "seed0" / "cell.json"
    assert path.stat().st_mtime_ns == kept


def test_speeds_are_of_models_and_change_nothing_else(tmp_path, capsys, monkeypatch):
    """Cells of one model share its speed; of a model that is gone, one step is trained."""
    wanted = "operations/utf8+independent", "operations/dense-ja+chained", "time/dense-ja+chained"
    before = run(tmp_path, "01", *wanted)
    runs = tmp_path / "out" / "smoke" / "trained"
    trained = set(runs.iterdir())
    gone = next(path for path in trained if "utf8" in (path / "study.yaml").read_text(encoding="utf-8"))
    (gone / "trained.json").unlink()
    monkeypatch.setattr(speeds, "TURNS", 2)
    args = ["speeds", "01", "--size", "smoke", "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    assert main(args) == 0
    assert "01: 2 models, 2 turns each" in capsys.readouterr().out
    (new,) = set(runs.iterdir()) - trained
    assert yaml.safe_load((new / "study.yaml").read_text(encoding="utf-8"))["trainer"]["max_steps"] == 1
    file = tmp_path / "results" / read_study("01").folder.name / "results.json"
    after = json.loads(file.read_text(encoding="utf-8"))["smoke"]
    assert after["cells"] == before
    timed = after["latency"]["seconds_per_forward"]
    assert timed["time/dense-ja+chained"] == timed["operations/dense-ja+chained"] != timed[wanted[0]]
    assert {law for laws in timed.values() for law in laws} == {"chain", "product", "next"}
    assert all(seconds > 0 for laws in timed.values() for seconds in laws.values())
    assert run(tmp_path, "01", *wanted) == before
    assert json.loads(file.read_text(encoding="utf-8"))["smoke"]["latency"] == after["latency"]


def test_what_two_studies_train_alike_is_trained_once(work):
    """The body without tables is a cell of 06 and the reference of 03; one with tables is another model."""
    trained = work / "out" / "smoke" / "trained"
    (first,) = run(work, "06", "plain/dense-ja/").values()
    before = set(trained.iterdir())
    (same,) = run(work, "03", "operations/linear+none").values()
    assert set(trained.iterdir()) == before
    assert same["train"] == first["train"]
    assert same["laws"] == first["laws"]
    run(work, "03", "operations/linear+merger")
    assert len(set(trained.iterdir()) - before) == 1


def test_a_twin_with_tables_is_trained_from_the_same_command(work):
    (cell,) = run(work, "04", "plain/bpe4k-tables").values()
    assert cell["plan"]["table_parameters"] == 6 * 8192 * 32
    assert set(cell["laws"]) == {"next"}


def test_robustness_and_acceptance_are_measured(work):
    (cell,) = run(work, "06", "plain/dense-ja/").values()
    assert len(cell["alignments"]["chain"]) == 4
    assert cell["robustness"]["emoji 10%"]["added"] != 0
    (cell,) = run(work, "05", "plain/dense-ja+chained").values()
    assert {"next, heads, T = 1, rejection", "chain, heads, T = 0.7, exact"} <= set(cell["acceptance"])


def test_processes_find_what_one_process_finds(tmp_path):
    wanted = "operations/dense-ja+chained", "operations/dense-spread+chained"
    here, beside = run(tmp_path / "a", "01", *wanted), run(tmp_path / "b", "01", *wanted, more=["--jobs", "2"])
    assert set(beside) == {f"{name}/seed0" for name in wanted}
    for name, cell in here.items():
        assert beside[name]["plan"] == cell["plan"]
        assert beside[name]["laws"] == cell["laws"]


def outcomes(tmp_path, minutes):
    """Of one cell in a process of its own, with the time that it has."""
    found, place = [], Place("smoke", None, tmp_path)
    (job,) = choose([read_study("01")], "smoke", ["operations/utf8+chained"])
    team.run_in_processes(place, 3, minutes)([job], lambda _, outcome: found.append(outcome))
    assert not place.file(job.study, job.cell).exists()
    return found


def test_a_process_that_dies_costs_its_cell_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(team, "_PACKAGE", "study.no_such_module")
    (outcome,) = outcomes(tmp_path, None)
    assert not outcome.late
    assert "the process ended, see" in outcome.error
    assert "no_such_module" in (tmp_path / "smoke" / "logs" / "0.log").read_text(encoding="utf-8")


def test_cells_are_ended_when_the_time_is_over(tmp_path):
    assert outcomes(tmp_path, 0) == []
    (outcome,) = outcomes(tmp_path, 0.5 / 60)
    assert outcome.late
    assert outcome.seconds < 5


def test_one_seed_of_all_studies_comes_before_the_next_seed_of_any():
    jobs = choose([read_study("04"), read_study("01")], "gpu", [])
    seeds = [job.cell.seed for job in jobs]
    assert seeds == sorted(seeds)
    assert {job.study.number for job in jobs if job.cell.seed == 0} == {"01", "04"}


def test_what_several_processes_need_is_made_once(tmp_path):
    """Each has its own workshop in the same folder; locks are those of files."""
    made = []

    def texts():
        made.append(time.sleep(0.2))
        return {split: ["text"] for split in ("train", "valid", "test")}

    shops = [Workshop(tmp_path, None, embedded=True) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda shop: shop._written("shared", texts), shops))
    assert len(made) == 1


def test_what_follows_from_measurements_is_of_each_law():
    """Four bytes of the text are 3.2 characters, whatever was written; `next` has the body at every byte."""
    laws = {"chain": {"positions_per_char": 0.3125}, "next": {"positions_per_char": 1.25}}
    cell = {
        "laws": laws,
        "best": {"law": "next"},
        "default": {"law": "chain", **laws["chain"]},
        "plan": {"patch": 4, "symbols_per_char": 1.25, "body_operations_per_char": 1000.0},
    }
    found = with_derived(cell)
    assert found["laws"]["chain"] == laws["chain"] | {"text_chars_per_forward": 3.2, "body_operations_per_char": 1000.0}
    assert found["laws"]["next"] == laws["next"] | {"text_chars_per_forward": 0.8, "body_operations_per_char": 4000.0}
    assert found["default"] == {"law": "chain", **found["laws"]["chain"]}
    assert found["best"] == {"law": "next", **found["laws"]["next"]}
    assert with_derived(found) == found
    assert with_derived({"plan": {}}) == {"plan": {}}


def test_a_group_has_the_speed_of_its_model():
    """Characters that a forward's symbols are in the text, over the seconds of a forward; none where none was timed."""
    laws = {law: {"text_chars_per_forward": chars} for law, chars in (("chain", 3.2), ("next", 0.8))}
    cell = {"laws": laws, "best": {"law": "next", "bits": 5.0}, "default": {"law": "chain"}}
    results = {"cells": {"a/b/seed0": cell, "a/b/seed1": cell, "a/c/seed0": cell}}
    results["latency"] = {"seconds_per_forward": {"a/b": {"chain": 0.002}}}
    found = means(results)
    assert found["a/b"]["laws"] == {"chain": {**laws["chain"], "text_chars_per_second": 1600.0}, "next": laws["next"]}
    assert found["a/b"]["default"] == {"law": "chain", **found["a/b"]["laws"]["chain"]}
    assert found["a/b"]["best"] == {"law": "next", "bits": 5.0, **laws["next"]}
    assert "text_chars_per_second" not in found["a/c"]["laws"]["chain"]
    del results["latency"]
    assert "text_chars_per_second" not in means(results)["a/b"]["laws"]["chain"]


def test_seeds_of_a_group_have_one_best_law():
    """The law that is best by the mean, for each with its own cost; not each seed's own."""

    def cell(chain, following):
        laws = {"chain": {"bits_per_char": chain, "cost": 1}, "next": {"bits_per_char": following, "cost": 3}}
        own = min(laws, key=lambda law: laws[law]["bits_per_char"])
        return {"laws": laws, "best": {"law": own, **laws[own]}, "default": {"law": "chain", **laws["chain"]}}

    results = {"cells": {"a/b/seed0": cell(5.0, 4.5), "a/b/seed1": cell(4.0, 5.0), "a/c/seed0": cell(5.0, 4.0)}}
    found = means(results)
    assert found["a/b"]["best"] == {"law": "chain", "bits_per_char": 4.5, "cost": 1}
    assert found["a/c"]["best"] == {"law": "next", "bits_per_char": 4.0, "cost": 3}
    assert render._over_seeds(results, "a/b", "best:bits_per_char", "+.2f") == "+4.50 ± 0.50"
    assert render._over_seeds(results, "a/b", "best:cost", ".0f") == "1"
    assert render._over_seeds(results, "a/c", "best:bits_per_char", ".2f") == "4.00"
    assert render._over_seeds(results, "a/d", "best:bits_per_char", ".2f") == "(not run)"


def test_shares_of_few_are_not_shown():
    """A dot for what was counted too seldom, or never; nothing where a list ends."""
    cells = {"a": {"found": {"x": {"at": [0.5, 0.25, None], "judged": [40, 8, 0]}, "y": {"at": [1.0], "judged": [30]}}}}
    rows = ["| a | x | 0.50 | · | · |", "| a | y | 1.00 |  |  |"]
    assert render._lists(cells, "found", "at", ".2f", "judged", "30").splitlines()[2:] == rows
    assert render._lists(cells, "found", "at", ".2f").splitlines()[2] == "| a | x | 0.50 | 0.25 | · |"


def test_a_model_of_the_package_is_a_cell_that_nobody_trains(tmp_path):
    (cell,) = (one for one in read_study("05").cells("cpu") if one.options["heads"] == "shipped")
    shop = Workshop(tmp_path, None, embedded=True)
    planned = plan_cell(cell, None, shop)
    assert is_trained(cell, planned, shop)
    found = train_cell(cell, planned, shop)
    assert load(found["model"]).config == planned.model
    assert (planned.steps, found["steps"], found["processor_s"]) == (0, 0, 0)
    assert not (tmp_path / "trained").exists()


@pytest.mark.slow
@BY_NUMBER
def test_every_study_runs_at_its_smallest_size(study, work):
    found = run(work, study.number)
    assert set(found) == {cell.name for cell in study.cells("smoke")}


def test_equal_operations_are_equal(work):
    study, shop = read_study("01"), Workshop(work / "out" / "smoke", None, embedded=True)
    by_name = {cell.group: cell for cell in study.cells("smoke")}
    planned = [
        plan_cell(by_name[f"operations/{name}"], study.reference("smoke", by_name[f"operations/{name}"]), shop)
        for name in ("dense-ja+chained", "utf8+independent")
    ]
    dense, utf8 = (operations_per_character(p.model, p.symbols.per_char, 48) for p in planned)
    assert utf8 == pytest.approx(dense, rel=0.3)  # a step of widths at this size
    assert dense == operations_per_character(
        model_of(by_name["time/dense-ja+chained"].settings, planned[0].symbols), planned[0].symbols.per_char, 48
    )


def test_figures_come_from_results_alone(tmp_path):
    """The mean over seeds, its range, and what is missing."""
    source = read_study("01")
    study = Study(tmp_path / "01_x", source.config, source.base)
    study.folder.mkdir()

    def cell(bits):
        return {
            "laws": {"chain": {"bits_per_char": bits}},
            "best": {"bits_per_char": bits},
            "options": {},
            "train": {"processor_s": 60.0},
            "load_average": 1.0,
        }

    group = "operations/dense-ja+chained"
    results = {
        "cpu": {
            "date": "2026-01-02",
            "planned": [f"{group}/seed0", f"{group}/seed1", "time/x/seed0"],
            "cells": {f"{group}/seed0": cell(5.0), f"{group}/seed1": cell(5.5)},
        }
    }
    study.results_file.write_text(json.dumps(results), encoding="utf-8")
    template = (
        "{{value | operations/dense-ja+chained | laws:chain:bits_per_char}} {{value | time/x | best:bits_per_char}}"
        " {{least | operations/ | best:bits_per_char | .2f}}"
    )
    assert render.fill(template, study) == "5.250 (not run) `operations/dense-ja+chained` (5.25)"
    assert "5.250 ± 0.250" in render.fill("{{table}}", study)
    state = render.fill("{{state}}", study)
    assert "2 of 3 cells" in state
    assert "Not run: `time/x`." in state
    assert "(load average 1.0 to 1.0); characters per second were not measured" in state
    latency = {"models": 3, "turns": 9, "date": "2026-01-03", "load_average": [0.75, 1.25], "seconds_per_forward": {}}
    study.results_file.write_text(json.dumps({"cpu": {**results["cpu"], "latency": latency}}), encoding="utf-8")
    state = render.fill("{{state}}", study)
    assert "all 3 models were timed in one run, in 9 turns, on 2026-01-03" in state
    assert "load average 0.8 before, 1.2 after" in state
    assert lookup(means(results["cpu"]), f"{group}:best:bits_per_char") == 5.25


def test_who_lies_below_whose_frontier_is_computed():
    """Cheaper and lower undercuts; cheaper or lower alone does not; after a minus more is better."""
    figures = {"p/a1": (10, 5.0), "p/a2": (30, 4.0), "p/b1": (20, 5.5), "p/b2": (5, 6.0), "p/b3": (30, 4.0)}
    cells = {name: {"cost": cost, "speed": -cost, "bits": bits} for name, (cost, bits) in figures.items()}
    assert render._undercut(cells, "p/a*", "p/b*", "cost", "bits") == "1 of 3, not `p/b2`, `p/b3`"
    assert render._undercut(cells, "p/a*", "p/b*", "-speed", "bits") == "1 of 3, not `p/b2`, `p/b3`"
    assert render._undercut(cells, "p/b3", "p/a1", "bits", "cost") == "0 of 1, not `p/a1`"
    assert render._undercut(cells, "p/a*", "p/c*", "cost", "bits") == "(not run)"
    assert render._difference(cells, "p/a1", "p/a2", "bits", "+.1f") == "+1.0"


def test_a_model_stands_below_another_under_one_law_at_a_time():
    """What is cheap under one law and low under the other is not both."""

    def cell(**laws):
        return {"laws": {law: {"cost": cost, "bits": bits} for law, (cost, bits) in laws.items()}}

    def below(one, other):
        return render._undercut({"a": one, "b": other}, "a", "b", "laws:*:cost", "laws:*:bits")

    two = cell(chain=(1, 4.0), next=(4, 3.0))
    assert below(two, cell(next=(2, 3.5))) == "0 of 1, not `b`"
    assert below(two, cell(next=(2, 4.5))) == "1 of 1"
    assert below(two, cell(next=(4, 3.5))) == "1 of 1"
    assert below(cell(next=(1, 3.5)), two) == "0 of 1, not `b`"
    assert below(cell(next=(1, 2.5)), two) == "1 of 1"
    assert below(cell(chain=(1, None)), two) == "(not run)"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "01"], "--data: found none, expected the folder of the texts"),
        (["run", "01", "--data", "/nowhere"], "--data: /nowhere/ja_train.jsonl.xz: no such file"),
        (["run", "99"], "study: found '99', expected one of 01, 02"),
        (["run", "01", "--size", "smoke", "--only", "utf7"], "--only: found utf7, expected a part of operations/"),
        (["run", "01", "--size", "smoke", "--minutes", "1"], "--minutes: found without --jobs, expected both"),
        (["run", "01", "--size", "smoke", "--jobs", "0"], "--jobs: found 0, expected a number > 0"),
    ],
)
def test_errors_are_one_line(args, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("BYTELM_STUDY_DATA", raising=False)
    assert main([*args, "--out", str(tmp_path), "--results", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_field_of_a_study_is_named(tmp_path, monkeypatch):
    shutil.copy(grid.STUDIES / "base.yaml", tmp_path / "base.yaml")
    folder = tmp_path / "01_x"
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump({"title": "x", "axis": {}}), encoding="utf-8")
    monkeypatch.setattr(grid, "STUDIES", tmp_path)
    with pytest.raises(ConfigError, match=r"study\.yaml: axis: unknown field"):
        read_study("01")


def test_texts_without_splits_are_split_by_their_ids(tmp_path):
    lines = [json.dumps({"text": f"t{i}", "id": str(i), "lang": "zh" if i % 2 else "ko"}) + "\n" for i in range(300)]
    (tmp_path / "mul.jsonl").write_text("".join(lines), encoding="utf-8")
    shop = Workshop(tmp_path / "out", tmp_path, embedded=False)
    text = shop.text({"name": "zh", "file": "mul.jsonl", "where": {"lang": "zh"}})
    parts = {split: set(text.documents(split)) for split in ("train", "valid", "test")}
    assert set.union(*parts.values()) == {f"t{i}" for i in range(1, 300, 2)}
    assert sum(map(len, parts.values())) == 150
    assert min(map(len, parts.values())) > 3

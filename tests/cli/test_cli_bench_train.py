import json

import pytest
import yaml

from bytelm.cli import bench_train as command

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("_small_products")]
QUICK = ("--steps", 1, "--repeats", 1, "--threads", 1)


@pytest.fixture
def _small_products(monkeypatch):
    monkeypatch.setattr("bytelm.benchmarks.matrix_rate._CPU_SIZES", (64,))


@pytest.fixture
def config(tiny_config, tmp_path):
    """Write a configuration with this merger; returns its path."""

    def write(name, **merger):
        plain = tiny_config.to_dict()
        plain["merger"] |= merger
        tree = {
            "trainer": {"accelerator": "cpu", "gradient_clip_val": 1.0},
            "model": {"encoding": "utf8", "config": plain, "optimizer": {"warmup_steps": 1}},
            "data": {"train": str(tmp_path / "nowhere"), "window": 32, "batch_size": 2},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return path

    return write


def test_json_is_as_documented(run, config, check_fields):
    pytest.importorskip("transformers")
    tables = {"orders": [2], "rows": 50}
    beside = config("tables", tables=tables)
    precisions = ("--precisions", "32-true,bf16-mixed")
    options = ("--beside", beside, *precisions, "--model.optimizer.tables", "read_rows")
    outcome = run("bench", "train", "--config", config("plain"), *options, *QUICK, "--json")
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out.splitlines()[-1])
    check_fields(command.train, found)
    assert (found["positions"], found["window"], found["device"], found["threads"]) == (16, 32, "cpu", 1)
    assert set(found["text"].values()) == {"the embedded text in utf8"}
    names = [(speed["name"], speed["precision"]) for speed in found["speeds"]]
    assert names[:3] == [(name, "32-true") for name in ("bytelm", "tables", "transformers")]
    assert [name for name, _ in names] == ["bytelm", "tables", "transformers"] * 2
    assert [entry["name"] for entry in found["skipped"]] == ["litgpt"]
    for speed in found["speeds"]:
        rate = found["rates"][speed["precision"]]
        assert 0 <= speed["data_share"] < 1
        assert speed["mfu"] == pytest.approx(speed["operations"] / speed["step_s"] / rate["flops"])
        assert speed["positions_per_s"] == pytest.approx(found["positions"] / speed["step_s"])
        assert 4 * 4 * speed["parameters"] < speed["peak_bytes"]
        assert (speed["chars_per_s"] is None) == (speed["name"] == "transformers")
    ours, tables, theirs = found["speeds"][:3]
    assert ours["ratio"] == 1
    assert tables["parameters"] == ours["parameters"] + 50 * 16
    assert tables["operations"] == ours["operations"] == pytest.approx(theirs["operations"], rel=0.3)
    assert theirs["ratio"] > 0
    assert found["rates"]["bf16-mixed"]["dtype"] == "bfloat16"


def test_the_table_for_people(run, config):
    outcome = run("bench", "train", "--config", config("plain"), "--no-rivals", *QUICK)
    assert outcome.status == 0, outcome.err
    assert "steps of 16 positions of the body (2 windows of 32 symbols" in outcome.out
    assert "32-true; matrix products in float32" in outcome.out
    assert "not measured" not in outcome.out
    assert "Goals: " in outcome.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--precisions", "8-bit"), "--precisions: found '8-bit', expected one of 32-true"),
        (("--trainer.precision", "64"), "trainer.precision: found '64', expected one of 32-true"),
        (("--model.config.width", "x"), "model.config"),
    ],
)
def test_mistakes_are_one_line(run, config, options, message):
    outcome = run("bench", "train", "--config", config("plain"), *options, *QUICK)
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1

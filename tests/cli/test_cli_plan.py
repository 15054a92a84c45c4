from pathlib import Path

import pytest
import yaml

from bytelm.cli.plan import plan
from bytelm.model.config import ModelConfig
from bytelm.model.presets import get_preset

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"

pytestmark = pytest.mark.skipif(not CONFIGS.is_dir(), reason="only in a source tree")


@pytest.fixture
def small():
    return CONFIGS / "ja_small.yaml"


def test_the_plan_of_the_reference_recipe(run, check_fields):
    outcome = run("plan", "--config", CONFIGS / "reference_6.5b.yaml", "--gpu", "h200", "--json")
    result = outcome.json
    assert outcome.err == ""
    check_fields(plan, result)
    assert result["parameters"] == get_preset("6.5b").num_parameters()
    assert (result["gpus"], result["accumulate_grad_batches"], result["windows_per_step"]) == (64, 8, 512)
    assert (result["bytes_per_step"], result["steps"], result["bytes"]) == (5_898_240, 170_000, 1_002_700_800_000)
    assert (result["epochs"], result["activation_checkpointing"]) == (None, True)
    assert "embedded" in result["chars_per_byte_of"]
    ways = [(each["layout"], each["checkpointing"]) for each in result["layouts"]]
    assert ways == [("replicated", False), ("replicated", True), ("sharded", False), ("sharded", True)]
    for each in result["layouts"]:
        sizes = [size for name, size in each.items() if name.endswith("_bytes") and name != "memory_bytes"]
        assert sum(sizes) == each["memory_bytes"]
        assert each["fits"] == (each["memory_bytes"] <= 141e9)
        assert each["hours"] == pytest.approx(each["step_s"] * 170_000 / 3_600)
    replicated, sharded = result["layouts"][1], result["layouts"][3]
    assert replicated["buckets_bytes"] == 0  # gradient_as_bucket_view
    assert sharded["weights_bytes"] == pytest.approx(replicated["weights_bytes"] / 64, rel=1e-6)
    # 6 operations per weight and position, and attention: within a tenth of it at this width
    simple = 6 * result["parameters"] / 4 / result["chars_per_byte"]
    assert simple < result["flops_per_char"] < 1.1 * simple


def test_other_numbers_of_gpus_keep_the_windows_of_a_step(run):
    recipe = CONFIGS / "reference_6.5b.yaml"
    for gpus, accumulate in ((1, 512), (512, 1)):
        result = run("plan", "--config", recipe, "--gpus", gpus, "--json").json
        assert (result["accumulate_grad_batches"], result["windows_per_step"]) == (accumulate, 512)
    run("plan", "--config", recipe, "--gpus", 3).refused("--gpus: found 3", "512 windows per step")
    plain = run("plan", "--config", recipe, "--trainer.strategy", "ddp", "--json").json["layouts"][0]
    assert plain["buckets_bytes"] == plain["gradients_bytes"] > 0


def test_the_table_and_options_of_fit(run, small):
    status, out, err = run("plan", "--config", small, "--data.batch_size", 16, "--gpus", 2, "--memory", 0.001)
    assert (status, err) == (0, "")
    config = ModelConfig.from_dict(yaml.safe_load(small.read_text(encoding="utf-8"))["model"]["config"])
    assert f"{config.num_parameters():,}" in out
    assert "32 windows of 1,024 = 32,768 bytes" in out
    assert len(out.strip().splitlines()) == 15
    assert out.count(" yes ") == 2  # checkpointing; nothing fits
    fast = run("plan", "--config", small, "--tflops", 100, "--mfu", 0.5, "--chars-per-byte", 0.5, "--json").json
    slow = run("plan", "--config", small, "--tflops", 50, "--mfu", 0.25, "--json").json
    assert (fast["chars_per_byte"], fast["chars_per_byte_of"]) == (0.5, "--chars-per-byte")
    assert fast["characters"] == fast["bytes"] / 2
    assert slow["layouts"][0]["hours"] == pytest.approx(4 * fast["layouts"][0]["hours"])


def test_the_corpus_says_characters_and_epochs(run, small, documents, tmp_path):
    built = run("corpus", "build", documents, "--out", tmp_path / "corpus", "--encoding", "dense-ja", "--json").json
    result = run("plan", "--config", small, "--data.train", tmp_path / "corpus", "--json").json
    assert result["chars_per_byte"] == pytest.approx(built["characters"] / built["bytes"])
    assert result["chars_per_byte_of"] == str(tmp_path / "corpus")
    assert result["epochs"] == pytest.approx(result["bytes"] / built["bytes"])


def test_a_model_in_a_folder(run, small, chained_model, tiny_config, tmp_path):
    tree = yaml.safe_load(small.read_text(encoding="utf-8"))
    tree["model"] = {"encoding": "dense-ja", "init_from": str(chained_model)}
    tree["data"]["window"] = 64
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert run("plan", "--config", path, "--json").json["parameters"] == tiny_config.num_parameters()
    with_module = run("plan", "--config", path, "--model.next_patch.inner", 8, "--json").json
    assert with_module["parameters"] > tiny_config.num_parameters()


def test_mistakes(run, small):
    run("plan").refused("Missing option '--config'")
    run("plan", "--config", small, "--gpu", "tpu").refused("--gpu: found 'tpu', expected one of a100-40gb")
    run("plan", "--config", small, "--gpus", 0).refused("--gpus")
    run("plan", "--config", small, "--memory", 0).refused("--memory: found 0")
    run("plan", "--config", small, "--chars-per-byte", -1).refused("--chars-per-byte: found -1")
    run("plan", "--config", small, "--data.wndow", 8).refused("data.wndow: unknown option", "data.window")
    run("plan", "--config", small, "--data.window", 6).refused("data.window: found 6, expected a multiple of patch = 4")
    run("plan", "--config", small, "--data.window", 2_048).refused("data.window: found 2048", "context of 1024")
    run("plan", "--config", small, "--trainer.max_steps", -1).refused("trainer.max_steps: found -1")
    run("plan", "--config", small, "--trainer.precision", "64-true").refused("trainer.precision: found '64-true'")
    run("plan", "--config", small, "--model.config.width", 0).refused("model.config.width: found 0")
    run("plan", "--config", small, "--model.encoding", "nope").refused("model.encoding: found 'nope'")
    run("plan", "--config", CONFIGS / "next_patch.yaml").refused("model.train_only: found 'next_patch'")
    run("plan", "--config", CONFIGS / "draft_heads.yaml").refused("model.frozen: found 'models/gpt-j-6b'")
    run("plan", "--config", CONFIGS / "none.yaml").refused("none.yaml")

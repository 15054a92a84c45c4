"""The project's own promises: sizes, the README's map, and configs that load."""

import ast
import itertools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from bytelm.cli.lightning import TERMINATED, read_settings
from bytelm.encoding import get_encoding
from bytelm.model.config import ModelConfig
from bytelm.model.ends import DraftHeadsConfig, NextPatchConfig
from bytelm.training import OptimizerConfig

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "bytelm").rglob("*.py"))
CONFIGS = sorted((ROOT / "experiments" / "configs").glob("*.yaml"))
HARDWARE_FOLDER = Path("experiments") / "configs" / "hardware"
HARDWARE = sorted((ROOT / HARDWARE_FOLDER).glob("*.yaml"))
ADDED = {"next_patch": NextPatchConfig, "draft_heads": DraftHeadsConfig}
"""What may be added to a model that is there."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= 60, node.name


def test_text_is_never_dropped_silently():
    ignoring = re.compile(r"errors\s*=\s*['\"]ignore['\"]")
    assert ignoring.search('x.decode(errors="ignore")')
    assert [p for p in SOURCES if ignoring.search(p.read_text(encoding="utf-8"))] == []


def test_the_readme_maps_what_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("## Where things are")[1].split("```")[1]
    named = [line.split()[0] for line in block.strip().splitlines()]
    assert len(named) >= 10
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_training_config_describes_a_model(path):
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    trained = yaml.safe_load((path.parent / "ja_small.yaml").read_text(encoding="utf-8"))["model"]["config"]
    config = ModelConfig.from_dict(settings["model"].get("config", trained), "model.config")
    assert len({"config", "init_from", "frozen"} & settings["model"].keys()) == 1
    for name, kind in ADDED.items():
        kind.from_dict(settings["model"].get(name, {}), f"model.{name}")
    OptimizerConfig.from_dict(settings["model"]["optimizer"], "model.optimizer")
    assert ("frozen" in settings["model"]) != ("encoding" in settings["model"])
    get_encoding(settings["model"].get("encoding", "utf8"))
    assert settings["data"]["window"] <= config.context


@pytest.mark.parametrize(("path", "hardware"), list(zip(CONFIGS, itertools.cycle(HARDWARE))), ids=lambda p: p.stem)
def test_every_config_is_one_of_the_command_line(path, hardware):
    """Each with one of those for hardware after it; a parser takes a second."""
    settings = read_settings(["--config", str(path), "--config", str(hardware)])
    assert settings["data"]["window"] == yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["window"]
    asked = yaml.safe_load(hardware.read_text(encoding="utf-8"))["trainer"]
    assert [settings["trainer"][name] for name in ("devices", "precision")] == [asked["devices"], asked["precision"]]
    assert len(CONFIGS) >= len(HARDWARE) > 0


def test_the_script_for_slurm_fits_its_config():
    script = (ROOT / "experiments" / "fit.sbatch").read_text(encoding="utf-8")
    options = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", script))
    trainer = yaml.safe_load((ROOT / HARDWARE_FOLDER / "eight_nodes_sharded.yaml").read_text())["trainer"]
    assert options["nodes"] == str(trainer["num_nodes"])
    assert options["ntasks-per-node"] == options["gpus-per-node"] == str(trainer["devices"])
    assert f"-eq {TERMINATED} " in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_twins_have_the_same_body_and_the_same_budget():
    twins = [yaml.safe_load(p.read_text(encoding="utf-8")) for p in CONFIGS if p.name.startswith("ja_small")]
    assert len(twins) == 5
    bodies = {ModelConfig.from_dict(t["model"]["config"]).num_body_parameters() for t in twins}
    budgets = {(t["trainer"]["max_steps"], t["data"]["window"], t["data"]["batch_size"]) for t in twins}
    alike = [t for t in twins if "algorithm" not in t["model"]["optimizer"]]
    optimizers = {tuple(v for k, v in t["model"]["optimizer"].items() if k != "tables") for t in alike}
    assert len(alike) == 4
    assert len(bodies) == len(budgets) == len(optimizers) == 1
    assert 4e6 < bodies.pop() < 6e6

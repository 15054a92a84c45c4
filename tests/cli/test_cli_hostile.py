"""Files of strangers, given to the commands: refused in one line, and nothing in them is run."""

import os

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from bytelm.cli.lightning import _UNPICKLING


class Trap:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trap(tmp_path):
    """A checkpoint with a trap, which makes ``tmp_path / "made"``."""
    path = tmp_path / "hostile.ckpt"
    torch.save({"state_dict": {}, "loops": Trap(tmp_path / "made"), "pytorch-lightning_version": "2.6.0"}, path)
    return path


@pytest.mark.filterwarnings("default")  # Lightning gives advice
@pytest.mark.parametrize("environment", ["0", "1"])
def test_a_checkpoint_to_go_on_with(environment, start, run, trap, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", environment)
    _, args = start("run", max_steps=1)
    run(*args, "--ckpt_path", trap).refused("mkdir, which was not run")
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_to_export(run, trap, tmp_path):
    (tmp_path / "hostile.ckpt.sha256").write_text("0" * 64 + "  hostile.ckpt\n")
    run("export", trap, "--out", tmp_path / "out").refused("torn or altered")
    (tmp_path / "hostile.ckpt.sha256").unlink()
    run("export", trap, "--out", tmp_path / "out").refused("hostile.ckpt")
    assert not (tmp_path / "made").exists()


@pytest.mark.filterwarnings("default")
def test_strategies_that_unpickle(start, run, tmp_path):
    _, args = start("run", max_steps=1)
    run(*args, "--trainer.strategy", "fsdp").refused("fsdp")  # without a GPU Lightning is first
    assert {FSDPStrategy, ModelParallelStrategy} <= set(_UNPICKLING)


def test_tags_of_yaml_are_not_obeyed(run, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"model: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    run("fit", "--config", path).refused("config.yaml")
    assert not (tmp_path / "made").exists()

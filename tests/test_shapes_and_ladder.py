"""The dimension legend is the only one, and the ladder of imports holds (so that `pytest` alone shows it)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bytelm.shapes
from bytelm.model import build_model
from bytelm.model.presets import get_preset

PACKAGE = Path(bytelm.shapes.__file__).parent
ROOT = PACKAGE.parent
LEGEND = set(re.findall(r"``([A-Z])``", bytelm.shapes.__doc__))
JAXTYPING = {"Float", "Int", "Integer", "Bool", "UInt8", "Int64", "Shaped"}
WITH_TORCH = [p for p in PACKAGE.rglob("*.py") if "jaxtyping" in p.read_text(encoding="utf-8")]


def test_the_legend_names_every_letter_once():
    assert sorted(LEGEND) == sorted("BLPTSDHGEFVKNR")


def shape_strings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in JAXTYPING:
            for part in ast.walk(node.slice):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


@pytest.mark.parametrize("path", WITH_TORCH, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_annotations_use_the_letters_of_the_legend(path):
    for shape in shape_strings(ast.parse(path.read_text(encoding="utf-8"))):
        for axis in shape.split():
            axis = axis.lstrip("*#")
            assert axis in LEGEND or axis in ("_", "...") or axis.isdigit(), f"{path.name}: axis {axis} of {shape!r}"


def test_name_suffixes_use_the_letters_of_the_legend():
    for path in WITH_TORCH:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name) and (found := re.fullmatch(r"[a-z][a-z0-9_]*_([A-Z][A-Z0-9]*)", node.id)):
                assert set(found[1]) <= LEGEND | set("0123456789"), f"{path.name}: {node.id}"


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="only in a source tree")
def test_imports_go_down_only():
    command = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: \d+ kept, 0 broken", done.stdout)


def test_shapes_are_checked_while_tests_run():
    """The import hook is on: a call with another number of axes is refused."""
    model = build_model(get_preset("tiny"), device="meta")
    with pytest.raises(Exception, match=r"(?i)type-check"):
        model(torch.zeros(2, 3, dtype=torch.int64, device="meta"))

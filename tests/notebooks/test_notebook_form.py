"""The notebooks as files: short, stripped, and each begins with what one will see and ends with what to try.

That they run is tested by running them: pytest collects ``notebooks/*.ipynb`` through nbmake.
"""

import ast
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MOST_CELLS, MOST_LINES = 25, 16
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code(path):
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def problems(notebook):
    """What git should not hold."""
    found = [] if notebook["metadata"] == METADATA else ["metadata of the notebook"]
    for number, cell in enumerate(notebook["cells"], 1):
        if cell.get("outputs"):
            found.append(f"outputs of cell {number}")
        if cell.get("execution_count") is not None:
            found.append(f"count of cell {number}")
        if cell["metadata"] not in ({}, {"tags": ["parameters"]}):
            found.append(f"metadata of cell {number}")
    return found


def test_there_are_five_in_order():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["1_", "2_", "3_", "4_", "5_"]
    told = re.findall(r"\| `([^`]+\.ipynb)` \|", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert told == [path.name for path in NOTEBOOKS]


@each
def test_outputs_counts_and_metadata_are_stripped(path):
    notebook = read(path)
    assert problems(notebook) == []
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)


def test_what_a_run_leaves_is_a_problem():
    notebook = read(NOTEBOOKS[0])
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    cell.update(outputs=[{"output_type": "stream"}], execution_count=3, metadata={"scrolled": True})
    notebook["metadata"] = {**METADATA, "widgets": {}}
    assert len(problems(notebook)) == 4


@each
def test_it_is_short(path):
    assert len(read(path)["cells"]) <= MOST_CELLS
    for cell in code(path):
        assert len([line for line in cell.splitlines() if line.strip()]) <= MOST_LINES, cell


@each
def test_it_begins_with_what_one_will_see_and_ends_with_what_to_try(path):
    cells = read(path)["cells"]
    first, last = ("".join(cells[i]["source"]) for i in (0, -1))
    assert first.startswith(f"# {path.stem[0]}. ")
    assert "You will see" in first
    assert last.startswith("## What to try\n")
    assert len(re.findall(r"^- ", last, re.MULTILINE)) >= 3


@each
def test_it_shows_pictures_and_small_settings_are_one_cell(path):
    cells = code(path)
    assert sum("Image(" in cell for cell in cells) >= (1 if path.stem.startswith("5") else 2)
    tagged = [cell for cell in read(path)["cells"] if cell["metadata"].get("tags") == ["parameters"]]
    asks = [cell for cell in cells if "BYTELM_NOTEBOOKS" in cell]
    assert ["".join(cell["source"]) for cell in tagged] == asks


@each
def test_logic_is_in_the_library(path):
    """No loops in loops, and no more functions and classes than the notebook is about."""
    tree = ast.parse("\n".join(code(path)))
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(defined) <= {"4": 1, "5": 7}.get(path.stem[0], 0)
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While)]
    nested = [inner for loop in loops for inner in ast.walk(loop) if isinstance(inner, ast.For) and inner is not loop]
    assert not nested

"""The code that travels: what it may import, and that it is the package's own."""

import ast
import sys

import pytest
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

from bytelm.hf.bundle import ENTRIES, bundle


@pytest.fixture(scope="module", name="files")
def fixture_files():
    return bundle()


def test_files_import_each_other_torch_numpy_and_transformers_alone(files):
    allowed = {"torch", "numpy", "transformers", "yaml", *sys.stdlib_module_names}
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                if node.module is not None:
                    assert f"{node.module}.py" in files, (name, node.lineno)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert {one.split(".")[0] for one in names} <= allowed, (name, node.lineno)


def test_transformers_finds_every_file_from_its_class(files, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    entries = [tmp_path / f"{entry.rpartition('.')[2]}.py" for entry in ENTRIES]
    reached = {str(path) for entry in entries for path in [entry, *get_relative_import_files(entry)]}
    assert reached == {str(tmp_path / name) for name in files}
    for entry in entries:  # transformers 4 copies what the file itself names
        assert {f"{name}.py" for name in get_relative_imports(entry)} >= {
            path.rpartition("/")[2] for path in get_relative_import_files(entry)
        } - {entry.name}


def test_no_name_of_the_package_is_imported_and_no_hub_file_is_carried(files):
    for name, text in files.items():
        assert "jaxtyping" not in text, name
        assert "from bytelm" not in text, name
        assert "\nimport bytelm" not in text, name
    carried = set(files)
    assert not carried & {"bytelm_hub_weights.py", "bytelm_hub_checkpoint.py", "bytelm_hf_bundle.py", "bundle.py"}
    assert all("training" not in name and "corpus" not in name and "cli" not in name for name in carried)


def test_it_is_the_same_every_time(files):
    assert bundle() == files

"""The exported folder under the version of transformers that the reference was tested with, and the newest.

``make transformers`` makes the environments and runs this.
"""

import json

import pytest
from environments import VERSIONS, python_of
from test_exported_folder import check_round_trip, check_usage

pytestmark = pytest.mark.slow


@pytest.fixture(params=VERSIONS, name="python")
def fixture_python(request):
    python = python_of(request.param)
    if not python.exists():
        pytest.skip(f"no environment with transformers {request.param}: `make transformers`")
    return python, request.param


def test_the_usage_script(lm, folder, without_bytelm, tmp_path, python):
    without_bytelm("usage_script.py", folder, tmp_path / "found.json", python=python[0])
    check_usage(lm, json.loads((tmp_path / "found.json").read_text()))


def test_the_usage_script_with_words_of_several_bytes(wide, without_bytelm, tmp_path, python):
    lm, folder = wide
    without_bytelm("usage_script.py", folder, tmp_path / "found.json", python=python[0])
    check_usage(lm, json.loads((tmp_path / "found.json").read_text()))


def test_round_trip_training_and_pipeline(lm, folder, without_bytelm, tmp_path, python):
    without_bytelm("round_trip_script.py", folder, tmp_path, python=python[0])
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["version"].startswith(python[1].removesuffix("*"))
    check_round_trip(found)
    assert found["pipeline"] == found["text"] + lm.generate([found["text"]], max_new_tokens=10).texts[0]

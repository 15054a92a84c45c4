import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny_model, trained_lm

from bytelm.encoding import get_encoding
from bytelm.hf.export import export_transformers
from bytelm.hub import LanguageModel
from bytelm.tokenizer import Tokenizer

pytest.importorskip("transformers")

BLOCKED = ("bytelm", "jaxtyping", "lightning", "torchmetrics", "typer")
_RUN = """
import runpy, sys
for name in {blocked!r}:
    sys.modules[name] = None
sys.argv = {args!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="session", params=["independent", "chained"])
def lm(request):
    """A language model that knows a little."""
    return trained_lm(request.param)


@pytest.fixture(scope="session")
def folder(lm, tmp_path_factory):
    """The model in a folder for transformers."""
    out = tmp_path_factory.mktemp("exported") / "a-model"
    export_transformers(out, lm)
    return out


@pytest.fixture(scope="session", params=["utf16", "utf32"])
def wide(request, tmp_path_factory):
    """A language model whose controls are words of several bytes, and its folder."""
    lm = LanguageModel(tiny_model("independent"), Tokenizer(get_encoding(request.param)))
    out = tmp_path_factory.mktemp("wide") / request.param
    export_transformers(out, lm)
    return lm, out


@pytest.fixture(scope="session")
def without_bytelm(tmp_path_factory):
    """Run a script in a process that cannot import bytelm and what only bytelm needs."""
    home = tmp_path_factory.mktemp("hf_home")

    def run(script, *args, python=sys.executable):
        code = _RUN.format(blocked=BLOCKED, args=[str(Path(__file__).parent / script), *map(str, args)])
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env |= {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
        done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, timeout=500, cwd=home)
        assert done.returncode == 0, done.stderr[-4000:]
        return done

    return run

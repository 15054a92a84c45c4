"""``import bytelm`` and transformers, in any order, in processes of their own."""

import os
import subprocess
import sys

import pytest
from test_exported_folder import IN_A_PROCESS

_LOAD = """
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
config = AutoConfig.from_pretrained({folder!r})
tokenizer = AutoTokenizer.from_pretrained({folder!r})
model = AutoModelForCausalLM.from_pretrained({folder!r})
for one in (config, tokenizer, model):
    assert type(one).__module__.startswith("bytelm.hf."), type(one)
"""


def python(code):
    env = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_import_bytelm_imports_neither_torch_nor_transformers():
    python("import bytelm, sys; assert not {'torch', 'transformers', 'bytelm.hf.modeling_bytelm'} & set(sys.modules)")


@IN_A_PROCESS
@pytest.mark.parametrize("first", ["bytelm", pytest.param("transformers", marks=pytest.mark.slow)])
def test_bytelm_before_and_after_transformers(folder, first):
    imports = {
        "bytelm": "import bytelm\nimport transformers",
        "transformers": "from transformers import AutoModelForCausalLM, AutoTokenizer\nimport bytelm",
    }
    python(imports[first] + _LOAD.format(folder=str(folder)))

"""Encodings and tokenizer work where torch is not installed, and importing them builds nothing."""

import subprocess
import sys

import pytest

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "lightning", "torchmetrics", "jaxtyping"}:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Block())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_encoding_and_tokenizer_work_without_torch():
    done = run(
        BLOCK
        + """
from bytelm.encoding import get_encoding, list_encodings
from bytelm.tokenizer import Tokenizer
for name in list_encodings():
    tokenizer = Tokenizer(get_encoding(name))
    assert tokenizer.decode(tokenizer.encode("雲が流れる")) == "雲が流れる"
assert "torch" not in sys.modules
"""
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["torch", "jaxtyping", "lightning"])
def test_the_block_does_block(module):
    done = run(BLOCK + f"import {module}")
    assert done.returncode != 0
    assert f"blocked: {module}" in done.stderr


def test_a_torch_import_in_the_tokenizer_would_be_noticed():
    done = run(BLOCK + "import bytelm.encoding\nbytelm.encoding.base.np = __import__('torch')")
    assert "blocked: torch" in done.stderr


def test_importing_builds_no_table():
    done = run("import bytelm.encoding.registry as r, bytelm.tokenizer; assert not r._known, r._known")
    assert done.returncode == 0, done.stderr

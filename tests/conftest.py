"""Hypothesis profiles (``HYPOTHESIS_PROFILE=dev|ci|nightly``; ``ci`` where CI is set), seeds, one thread."""

import importlib
import os
import warnings

import hypothesis
import jaxtyping
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from shape_checks import once_for_each_form

# Shapes and types are checked in the layers that hold tensors; in those of text that costs more than the calls
# themselves. Modules that the hook imports ask for ``jaxtyping.jaxtyped``.
_CHECKED = ("nn", "heads", "metrics", "model", "decoding", "corpus", "hub", "training", "evaluation", "benchmarks")
jaxtyping.jaxtyped = once_for_each_form(jaxtyping.jaxtyped)
install_import_hook(
    [f"bytelm.{layer}" for layer in _CHECKED],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

hypothesis.settings.register_profile("dev", deadline=None, max_examples=30)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

torch.set_num_threads(1)


@pytest.fixture
def plain_bitsandbytes(monkeypatch):
    """bitsandbytes by its formula, in plain torch: its kernels for AVX-512 misread rows that are no whole blocks."""
    library = pytest.importorskip("bitsandbytes")
    formula = importlib.import_module("bitsandbytes.backends.default.ops")._dequantize_4bit_compute
    code = importlib.import_module("bitsandbytes.backends.utils")._get_4bit_code

    def dequantise(packed, absmax, blocksize, quant_type, shape, dtype):
        values = code(quant_type, packed.device)
        return formula(packed.view(torch.uint8).reshape(-1), absmax, values, blocksize, shape, dtype)

    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    registered = torch.library.Library("bitsandbytes", "IMPL")
    with torch.compiler.set_stance("force_eager"):
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # torch says that it is replaced
            registered.impl("dequantize_4bit", dequantise, "CPU", allow_override=True)
        yield library
        registered._destroy()


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same numbers, in whatever order tests run."""
    torch.manual_seed(0)
    np.random.seed(0)

"""Hypothesis profiles (``HYPOTHESIS_PROFILE=dev|ci|nightly``; ``ci`` where CI is set), seeds, one thread."""

import os

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


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same numbers, in whatever order tests run."""
    torch.manual_seed(0)
    np.random.seed(0)

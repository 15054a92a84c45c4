"""Requests of lm-evaluation-harness, and models for it. Its own imports warn of what is not ours."""

import os
import warnings

import pytest

os.environ["TQDM_DISABLE"] = "1"  # read on import
pytest.importorskip("lm_eval", reason="the extra eval is not installed")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lm_eval.api.instance import Instance

    from bytelm.evaluation.harness_model import BytelmLM

__all__ = ["BytelmLM", "requests"]


def requests(kind, *arguments):
    """A request of this kind for each tuple of arguments."""
    return [Instance(request_type=kind, doc={}, arguments=args, idx=i) for i, args in enumerate(arguments)]

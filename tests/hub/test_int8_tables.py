"""N-gram tables in int8: another model of a quarter of the bytes, decoded as exactly as any."""

import copy

import numpy as np
import pytest
import torch
from support import BOS, naive_generate, random_bytes, tiny_model

import bytelm
from bytelm.benchmarks import model_bytes
from bytelm.decoding import HeadsDrafter, NoDrafter, Sampling, decode
from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError
from bytelm.hub import save_checkpoint
from bytelm.hub.int8 import quantise_tables
from bytelm.model.targets import make_target
from bytelm.nn.ngram import Int8Rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tables"
    save_checkpoint(path, tiny_model("chained", True), get_encoding("dense-ja"))
    return path


def test_load_with_the_tables_alone_in_int8(folder):
    plain, rounded = bytelm.load(folder), bytelm.load(folder, int8_tables=True)
    tables = [m for m in rounded.model.modules() if isinstance(m, Int8Rows)]
    rows, width = 3 * 61, 32
    assert [tuple(t.codes_RD.shape) for t in tables] == [(rows, width)] * 2
    assert model_bytes(plain.model) - model_bytes(rounded.model) == 2 * rows * (4 * width - width - 4)
    weights = dict(plain.model.named_parameters())
    for name, weight in rounded.model.named_parameters():
        assert torch.equal(weight, weights.pop(name))
    assert set(weights) == {"merger.tables.table.weight", "heads.tables.table.weight"}
    assert plain.score(["山の朝"]).total.nats != rounded.score(["山の朝"]).total.nats
    assert plain.score(["山の朝"]).total.nats == pytest.approx(rounded.score(["山の朝"]).total.nats, rel=0.1)
    half = bytelm.load(folder, int8_tables=True, dtype=torch.bfloat16)
    assert len(half.generate(["山"], max_new_tokens=4).ids[0]) <= 4


@pytest.mark.parametrize("law", ["chain", "next"])
def test_decoding_is_that_of_the_rounded_model(law):
    """Drafts, caches and batches against a naive loop over the model whose tables hold the rounded rows as floats."""
    model = tiny_model("chained", True)
    reference = copy.deepcopy(model)
    quantise_tables(model)
    with torch.no_grad():
        for module, other in ((model.merger, reference.merger), (model.heads, reference.heads)):
            rows = torch.arange(len(module.tables.table.codes_RD))
            other.tables.table.weight.copy_(module.tables.table(rows))
    prompts = [random_bytes(n, n) for n in (5, 0, 18)]
    sampling = Sampling(do_sample=True)
    expected, _ = naive_generate(reference, law, prompts, sampling, 9, seed=3)
    for drafter in (NoDrafter(), *([HeadsDrafter(3)] if law == "next" else [])):
        run = decode(make_target(model, law, BOS), prompts, max_new=9, sampling=sampling, drafter=drafter, seed=3)
        assert [s.tolist() for s in run.symbols] == [np.asarray(e).tolist() for e in expected]


def test_a_model_without_tables_is_refused():
    with pytest.raises(ConfigError, match=r"^int8_tables: found a model without n-gram tables, expected one that has"):
        quantise_tables(tiny_model("chained", False))

"""Alignments, undecodable output and acceptance, against plain ways to the same numbers."""

import math

import numpy as np
import pytest
from support import TEXTS, trained_lm

from bytelm.encoding import get_encoding
from bytelm.evaluation.alignment import score_alignments
from bytelm.evaluation.sampled_text import Undecodable, measure_acceptance, measure_undecodable
from bytelm.hub import LanguageModel
from bytelm.model.build import build_model
from bytelm.model.laws import score_symbols
from bytelm.model.presets import PRESETS
from bytelm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def lm():
    return trained_lm("chained", next_patch=True)


def test_an_alignment_is_that_of_a_prompt_of_so_many_symbols(lm):
    found = score_alignments(lm, TEXTS, "chain")
    rows = [np.concatenate((lm.tokenizer.opening(4), lm.tokenizer.encode(text))) for text in TEXTS]
    for shift in range(4):
        bits = total = 0.0
        for row in rows:
            nats = score_symbols(lm.model, "chain", [row], [4 + shift])[0]
            bits += math.fsum(nats[3 - shift :].tolist()) / math.log(2)
            total += len(row) - 7
        assert found[shift] == pytest.approx(bits / total, rel=1e-6)
    assert len(set(found)) == 4


def test_next_has_no_alignment(lm):
    assert score_alignments(lm, TEXTS, "next") == pytest.approx([score_alignments(lm, TEXTS, "next")[0]] * 4, rel=1e-6)


def test_pieces_are_counted():
    assert Undecodable(30, 10).share == 0.25
    assert Undecodable(0, 0).share == 0.0
    untrained = LanguageModel(build_model(PRESETS["tiny"]), Tokenizer(get_encoding("utf8")))
    found = measure_undecodable(untrained, ["朝"], max_new_tokens=60)
    out = untrained.generate(["朝"], draft="none", do_sample=True, seed=0, max_new_tokens=60, eos_token_id=())
    assert found.pieces == out.texts[0].count("\ufffd") > 10
    assert found.characters == len(out.texts[0]) - found.pieces


def test_every_drafter_of_every_law_is_measured(lm):
    found = measure_acceptance(lm, TEXTS[:2], max_new_tokens=24)
    assert {(a.law, a.draft) for a in found} == {(law, draft) for law in lm.laws for draft in ("heads", "lookup")}
    assert {(a.temperature, a.verify) for a in found} == {
        (0.0, "exact"),
        *((t, rule) for t in (0.7, 1.0) for rule in ("exact", "rejection")),
    }
    for one in found:
        assert all(a <= j for a, j in zip(one.accepted_at, one.judged_at, strict=True))
        assert all((share is None) == (j == 0) for share, j in zip(one.at, one.judged_at, strict=True))
    greedy = next(a for a in found if (a.law, a.draft, a.temperature) == ("chain", "heads", 0.0))
    out = lm.generate(TEXTS[:2], max_new_tokens=24, eos_token_id=(), law="chain", draft="heads")
    assert greedy.accepted_at == out.stats.accepted_at


def test_a_law_without_heads_to_draft_with_has_look_up_alone():
    plain = trained_lm("independent")
    assert {a.draft for a in measure_acceptance(plain, ["朝"], max_new_tokens=6) if a.law == "product"} == {"lookup"}

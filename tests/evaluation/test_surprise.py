"""Bits per character add up to the score of the text, for bytes and for tokens; pieces are the text."""

import pytest
import torch
from bpe_models import folder_of
from hypothesis import given, settings
from hypothesis import strategies as st

import bytelm
from bytelm.encoding import get_encoding
from bytelm.evaluation.surprise import character_bits, forward_pieces
from bytelm.hub import LanguageModel
from bytelm.model import build_model
from bytelm.model.config import AttentionConfig, FeedForwardConfig, ModelConfig
from bytelm.model.ends import ChainedHeadsConfig, IndependentHeadsConfig, MergerConfig
from bytelm.tokenizer import Tokenizer

TEXT = "山と海、🐟 and 川。\n"


def byte_model(encoding, heads):
    config = ModelConfig(
        width=16,
        num_blocks=1,
        context=64,
        attention=AttentionConfig(num_heads=2, num_kv_heads=1, head_width=8),
        feedforward=FeedForwardConfig(inner=32),
        merger=MergerConfig(byte_width=4),
        heads=heads,
    )
    return LanguageModel(build_model(config, seed=1), Tokenizer(get_encoding(encoding)))


@pytest.fixture(scope="module")
def models():
    chained = byte_model("dense-ja", ChainedHeadsConfig(byte_width=8, inner=16))
    return {
        "dense-ja": chained,
        "utf8": byte_model("utf8", IndependentHeadsConfig()),
        "utf16": byte_model("utf16", IndependentHeadsConfig()),
        "gpt2": bytelm.load(folder_of("gpt2")),
        "gptjt": bytelm.load(folder_of("gptjt")),
    }


NAMES = ("dense-ja", "utf8", "utf16", "gpt2", "gptjt")


@pytest.mark.parametrize("name", NAMES)
def test_bits_add_up_to_the_score_and_pieces_to_the_text(models, name):
    lm = models[name]
    for law in lm.laws:
        found = character_bits(lm, TEXT, law)
        score = lm.score([TEXT], law=law).total
        assert "".join(piece.text for piece in found) == TEXT
        assert sum(piece.bits for piece in found) == pytest.approx(score.bits_per_char * len(TEXT), rel=1e-9)
        assert all(piece.bits > 0 for piece in found)
    if name not in ("gpt2", "gptjt"):
        assert [piece.text for piece in found] == list(TEXT)


def test_the_bits_of_a_character_are_those_of_its_bytes(models):
    """A longer text changes no character before, and what a character adds to the score is its bits."""
    lm = models["dense-ja"]
    scores = [lm.score([TEXT[:end]], law="next").total.nats for end in range(1, len(TEXT) + 1)]
    steps = torch.tensor([0.0, *scores]).diff() / torch.log(torch.tensor(2.0))
    bits = [piece.bits for piece in character_bits(lm, TEXT, "next")]
    assert bits == pytest.approx(steps.tolist(), abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
@settings(max_examples=20)
def test_forwards_cut_the_text(models, name, text):
    lm = models[name]
    pieces = forward_pieces(lm, text)
    assert "".join(pieces) == text
    assert len(pieces) == -(-len(lm.tokenizer.encode(text)) // lm.config.patch)


def test_no_character_twice_and_none_lost_where_a_patch_cuts_it(models):
    assert forward_pieces(models["utf8"], "山と") == ["山", "と"]
    assert forward_pieces(models["utf8"], "🐟山と川海") == ["🐟", "山", "と", "川海"]
    assert forward_pieces(models["utf16"], "🐟山と") == ["🐟", "山と"]
    assert forward_pieces(models["dense-ja"], "") == []

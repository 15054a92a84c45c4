"""Symbols of chained heads drawn in one call of the native core: those of asking head after head."""

import pytest
import torch
from support import tiny_config

from bytelm.decoding.noise import GumbelNoise
from bytelm.hub.int8 import quantise_tables
from bytelm.model.axes import MatchConfig, NgramConfig
from bytelm.model.build import build_model
from bytelm.model.ends import ChainedHeadsConfig
from bytelm.nn import native
from bytelm.nn.ngram import ngram_keys

pytestmark = [
    pytest.mark.skipif(native.core is None, reason="the core was not built"),
    pytest.mark.usefixtures("unit"),
]
BATCH, STATES = 3, 2
TABLES = {
    "none": None,
    "wide": NgramConfig(orders=(1, 3, 4), rows=97),
    "narrow": NgramConfig(orders=(2, 3), rows=97, row_width=16),
    "chosen": NgramConfig(orders=(1, 2, 7), rows=97, row_width=16, chosen=True),
    "matches": NgramConfig(orders=(1, 2), rows=97, row_width=16, matches=MatchConfig(lengths=(1, 2), reach=6)),
}


def model_of(dtype, tables, int8=False, unembedding="own"):
    """``mixed`` before the name of tables: heads whose MLPs read their rows."""
    mixed, tables = tables.startswith("mixed"), TABLES[tables.removeprefix("mixed ")]
    heads = ChainedHeadsConfig(byte_width=16, inner=32, tables=tables, mixed=mixed, unembedding=unembedding)
    model = build_model(tiny_config(heads=heads), seed=3)
    if tables is not None and tables.chosen:
        choose_some(model.heads.tables)
    for parameter in model.heads.parameters():
        parameter.data *= 8  # so that all parts matter to the choice
    model = model.to(dtype).eval()
    if int8:
        quantise_tables(model)
    return model


def choose_some(tables):
    """Rows for every other byte, and for some of the longer n-grams that :func:`inputs` has before its prefix."""
    windows = windows_of()[1:]
    keys = [ngram_keys(torch.arange(0, 256, 2)[:, None]), *(ngram_keys(windows[..., -n:]).flatten() for n in (2, 7))]
    tables.choose(torch.cat(keys))
    own = tables.rows_of(windows_of()) >= len(tables.orders)
    assert own[1:, :, 1:].all()
    assert not own[0, :, 1:].any()


def windows_of():
    windows = torch.randint(0, 256, (BATCH, STATES, 8), generator=torch.Generator().manual_seed(9))
    windows[0, 0, :2] = -1  # where a text has not begun
    windows[1] %= 3  # where it repeats itself
    return windows


def inputs(model, dtype, known):
    generator = torch.Generator().manual_seed(known)
    h = torch.randn(BATCH, STATES, model.config.width, generator=generator).to(dtype)
    return h, windows_of(), torch.randint(0, 256, (BATCH, STATES, known), generator=generator)


def noise_of(num):
    ahead = GumbelNoise([(5, row) for row in range(BATCH)])(torch.zeros(BATCH).long().numpy(), STATES * num + 2, 256)
    return ahead[:, 1 : 1 + STATES * num]  # a view, as the loop has it


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("unembedding", ["own", "shared"])
@pytest.mark.parametrize(
    ("tables", "int8"),
    [
        *(("none", False), ("wide", False), ("narrow", False), ("wide", True), ("narrow", True)),
        *(("chosen", False), ("chosen", True), ("mixed wide", False), ("mixed narrow", True), ("mixed chosen", False)),
        *(("matches", True), ("mixed matches", False)),
    ],
)
@pytest.mark.parametrize("known", [0, 1, 3])
@torch.inference_mode()
def test_symbols_are_those_of_head_after_head(known, tables, int8, unembedding, dtype):
    model = model_of(dtype, tables, int8, unembedding)
    heads, (h, windows, prefix), num = model.heads, inputs(model, dtype, known), 4 - known
    for noise, temperature in ((None, 1.0), (noise_of(num), 1.0), (noise_of(num), 0.3)):
        symbols, nats, logits = heads.draw(h, windows, prefix, num, noise, temperature)
        assert logits.shape == (BATCH, STATES, num, 256)
        scores = logits.float()
        if temperature != 1:
            scores = (scores - scores.amax(-1, keepdim=True)) / temperature
        if noise is not None:
            scores = scores + noise.unflatten(1, (STATES, num))
        assert torch.equal(symbols, scores.argmax(-1))
        log_p = logits.double().log_softmax(-1)
        torch.testing.assert_close(nats, -log_p.gather(-1, symbols[..., None])[..., 0], rtol=1e-12, atol=1e-12)
        for n in range(num):
            one = heads.step(h, windows, torch.cat((prefix, symbols[..., :n]), dim=-1))
            torch.testing.assert_close(logits[:, :, n], one, rtol=2e-2 if dtype is torch.bfloat16 else 1e-5, atol=1e-4)


@torch.inference_mode()
def test_a_row_is_the_same_alone_and_among_others():
    model = model_of(torch.bfloat16, "narrow")
    h, windows, prefix = inputs(model, torch.bfloat16, 1)
    noise = noise_of(3)
    symbols, nats, logits = model.heads.draw(h, windows, prefix, 3, noise, 0.7)
    for row in range(BATCH):
        one = slice(row, row + 1)
        alone = model.heads.draw(h[one], windows[one], prefix[one], 3, noise[one], 0.7)
        assert torch.equal(alone[0], symbols[one])
        assert torch.equal(alone[1], nats[one])
        assert torch.equal(alone[2], logits[one])


@torch.inference_mode()
def test_of_equal_logits_the_first_is_taken_and_what_is_no_number_is_the_largest():
    model = model_of(torch.float32, "none")
    h, windows, prefix = inputs(model, torch.float32, 0)
    model.heads.unembeddings[0].weight.data[:] = model.heads.unembeddings[0].weight.data[:1]
    assert (model.heads.draw(h, windows, prefix, 1, None, 1.0)[0] == 0).all()
    model.heads.unembeddings[0].weight.data[7:9] = float("nan")
    for noise in (None, noise_of(1)):
        symbols, nats, logits = model.heads.draw(h, windows, prefix, 1, noise, 1.0)
        assert (symbols == 7).all()
        assert (logits.argmax(-1) == 7).all()
        assert nats.isnan().all()


@torch.inference_mode()
def test_none_where_the_core_cannot():
    model = model_of(torch.float32, "narrow")
    given = inputs(model, torch.float32, 0)
    assert model.heads.draw(*given, 4, None, 1.0) is not None
    model.heads.tables.register_forward_hook(lambda *_: None)
    assert model.heads.draw(*given, 4, None, 1.0) is None
    many = torch.randn(native.MANY_ROWS + 1, 1, model.config.width)
    windows = torch.zeros(len(many), 1, 4, dtype=torch.int64)
    assert model_of(torch.float32, "none").heads.draw(many, windows, windows[..., :0], 4, None, 1.0) is None

"""N-grams longer than a patch, of bytes and of tokens, and matches: the windows before are read, cached, cut at
documents.
"""

import dataclasses

import numpy as np
import pytest
import slow_model
import torch
from support import BOS, TEXTS, naive_generate, tiny_config, tiny_model
from support import random_bytes as any_bytes

import bytelm
import bytelm.testing as kit
from bytelm.benchmarks.training_plan import table_parameters
from bytelm.decoding import NoDrafter, Sampling, decode
from bytelm.errors import CheckpointError
from bytelm.hub import LanguageModel
from bytelm.hub.token_checkpoint import save_token_model
from bytelm.model import reading
from bytelm.model.axes import MatchConfig
from bytelm.model.build import build_model
from bytelm.model.config import NgramConfig
from bytelm.model.documents import DocumentBoundaries
from bytelm.model.ends import MergerConfig
from bytelm.model.reading import windows_at
from bytelm.model.targets import make_target
from bytelm.model.twins import token_twin
from bytelm.nn.kv_cache import CacheView
from bytelm.nn.ngram import ChosenNgrams, ngram_keys
from bytelm.nn.windows import with_windows_before
from bytelm.tokenizer import BPETokenizer, train_bpe
from bytelm.training import ByteLMModule

LONG = NgramConfig(orders=(2, 4, 6, 9), rows=61)
MATCHING = NgramConfig(orders=(1, 3), rows=97, matches=MatchConfig(lengths=(1, 2, 4), candidates=2, reach=10))
PLACES = ["merger", "heads", "both", "chosen", "mixed", "matches", "chosen matches"]


def random_bytes(num, seed):
    """Of few values, so that n-grams come again."""
    return any_bytes(num, seed) % 5


@pytest.fixture(scope="module", params=PLACES)
def model(request):
    """A model with n-grams longer than a patch where the parameter says."""
    changes = {}
    tables = MATCHING if "matches" in request.param else LONG
    tables = dataclasses.replace(tables, chosen="chosen" in request.param)
    if request.param != "heads":
        changes["merger"] = MergerConfig(byte_width=16, tables=tables)
    if request.param != "merger":
        heads = tiny_config("chained", True).heads
        changes["heads"] = dataclasses.replace(heads, tables=tables, mixed=request.param == "mixed")
    model = tiny_model("chained", True, **changes)
    for part in model.modules():
        if isinstance(part, ChosenNgrams):  # pairs that begin with a small byte, and the fours of a text
            text = torch.from_numpy(random_bytes(24, 1).astype(np.int64))
            pairs = torch.cartesian_prod(torch.arange(0, 256, 9), torch.arange(0, 256, 40))
            part.choose(torch.cat((ngram_keys(text.unfold(0, part.orders[1], 1)), ngram_keys(pairs)))[: part.capacity])
    return model


def loud(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0 if parameter.dim() > 1 else 1.0)
    return model.eval()


@pytest.fixture(scope="module", params=[None, 24], ids=["added", "mixed"])
def tokens(request):
    """A model of tokens with tables at both ends, and its tokenizer."""
    tokenizer = BPETokenizer(train_bpe(TEXTS, 300))
    config = token_twin(
        tiny_config(),
        tokenizer.vocab_size,
        256,
        tables=NgramConfig(orders=(1, 2, 3), rows=59),
        head_tables=NgramConfig(orders=(2, 5), rows=53),
        head_inner=request.param,
    )
    return loud(build_model(config, seed=3)), tokenizer


@pytest.mark.parametrize("positions", [None, torch.arange(4)], ids=["one text", "positions"])
def test_windows_before_are_those_of_a_loop(positions):
    windows = torch.arange(24).view(2, 4, 3)
    found = with_windows_before(windows, positions, 2)
    for row in range(2):
        text = [-1] * 6 + windows[row].flatten().tolist()
        assert found[row].tolist() == [text[3 * t : 3 * t + 9] for t in range(4)]


def test_windows_before_are_those_of_the_same_text():
    windows = torch.arange(12).view(1, 4, 3)
    found = with_windows_before(windows, torch.tensor([[0, 1, 0, 1]]), 2)
    assert found[0, 2].tolist() == [-1] * 6 + [6, 7, 8]
    assert found[0, 3].tolist() == [-1] * 3 + [6, 7, 8, 9, 10, 11]


def test_states_and_logits_are_those_of_the_definition(model):
    assert model.config.num_windows_before == 2
    data = random_bytes(24, 1)
    found = model(torch.from_numpy(data.astype(np.int64)).view(1, -1, 4))[0]
    np.testing.assert_allclose(found.detach(), slow_model.states(model, data), atol=1e-4)
    for prefix in ([], [7], [7, 0, 9]):
        told = torch.tensor(prefix, dtype=torch.int64)
        before = model.windows_of_heads(torch.from_numpy(data.astype(np.int64)).view(1, -1, 4))[0, -1]
        logits = model.heads.step(found[-1], before, told).detach()
        expected = slow_model.head_logits(model, slow_model.states(model, data)[-1], data, prefix)
        np.testing.assert_allclose(logits, expected, atol=1e-3)


@pytest.mark.parametrize("law", ["chain", "next"])
def test_generation_equals_a_naive_uncached_loop(law, model):
    prompts, sampling = [random_bytes(n, n) for n in (5, 0, 14)], Sampling(do_sample=True)
    expected, _ = naive_generate(model, law, prompts, sampling, 9, seed=3)
    run = decode(make_target(model, law, BOS), prompts, max_new=9, sampling=sampling, drafter=NoDrafter(), seed=3)
    assert [s.tolist() for s in run.symbols] == [e.tolist() for e in expected]


def audit(make):
    prompts = [random_bytes(n, n).astype(np.int64) for n in (0, 3, 17)]
    return kit.check_cache(make, prompts, rounds=8, poison=kit.poison_cache)


@pytest.mark.parametrize("law", ["chain", "next"])
def test_drafts_that_do_not_hold_leave_nothing(law, model):
    assert audit(lambda: make_target(model, law, BOS)).outcome == "passed"


def test_drafts_of_tokens_leave_nothing(tokens):
    assert audit(lambda: make_target(tokens[0], "next", np.array([0]))).outcome == "passed"


@pytest.mark.parametrize("model", [place for place in PLACES if "chosen" not in place], indirect=True)
@pytest.mark.parametrize("law", ["chain", "next"])
def test_windows_that_are_not_kept_are_noticed(law, model, monkeypatch):
    """Negative control: a cache, or a text, that knows the windows of its own forward alone."""

    def forgetful(bytes_BL, begins_B1, draft, patch, num_before):
        windows = windows_at(bytes_BL, begins_B1, draft, patch, num_before)
        return torch.where(torch.arange(windows.shape[-1]) < num_before * patch, -1, windows)

    def keep(self, windows_BTP):
        self.own = windows_BTP
        really_keep(self, windows_BTP)

    def before(self, num):
        if not hasattr(self, "own"):  # heads, after a forward that had another view
            self.own = self.cache.windows[self.rows_B1, self.positions]
        return with_windows_before(self.own, self.positions, num)[..., : -self.own.shape[-1]]

    really_keep = CacheView.keep
    monkeypatch.setattr(CacheView, "keep", keep)
    monkeypatch.setattr(CacheView, "before", before)
    monkeypatch.setattr(reading, "windows_at", forgetful)
    assert audit(lambda: make_target(model, law, BOS)).outcome == "failed"


def test_tokens_are_scored_and_generated_as_a_full_forward_says(tokens):
    model, tokenizer = tokens
    lm = LanguageModel(model, tokenizer)

    def logits(ids):
        with torch.no_grad():
            return model.lm_head.logits(model(torch.tensor(ids)[None, :, None]))[0]

    ids = [tokenizer.bos_id, *tokenizer.encode(TEXTS[0]).tolist()]
    law = logits(ids)[:-1].log_softmax(-1)
    expected = -law[torch.arange(len(ids) - 1), ids[1:]].sum()
    assert lm.score([TEXTS[0]]).total.nats == pytest.approx(float(expected), rel=1e-5)
    row = tokenizer.encode(TEXTS[1]).tolist()
    for symbol in lm.generate([TEXTS[1]], max_new_tokens=12, draft="lookup", eos_token_id=()).ids[0].tolist():
        assert symbol == int(logits(row)[-1].argmax())
        row.append(symbol)


def test_both_tables_of_tokens_matter_and_are_counted(tokens):
    model, _ = tokens
    config = model.config
    assert config.num_parameters() == sum(p.numel() for p in model.parameters())
    assert table_parameters(config) == (3 * 59 + 2 * 53) * config.width
    windows = torch.randint(0, 300, (2, 5, 1))
    plain = model(windows)
    for part in (model.merger.tables, model.state_tables):
        kept = part.table.weight.data.clone()
        part.table.weight.data.zero_()
        assert not torch.allclose(model(windows), plain)
        part.table.weight.data.copy_(kept)


def test_an_ngram_ends_where_its_document_begins(model):
    """What stands before a document in a row of several changes none of its states."""
    boundaries, bos = DocumentBoundaries(7), [7, 7, 7, 7]
    document = [*bos, *range(20, 36)]
    rows = torch.tensor([[*range(100, 112), *document], [*range(200, 212), *document]]).unflatten(1, (-1, 4))
    alone = model(torch.tensor([document]).unflatten(1, (-1, 4)))
    found = model(rows, boundaries(rows))[:, 3:]
    torch.testing.assert_close(found, alone.expand_as(found), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model(rows)[:, 3:], alone.expand_as(found), atol=1e-2)


def test_a_folder_keeps_tables_of_tokens(tokens, tmp_path):
    model, tokenizer = tokens
    save_token_model(tmp_path / "a", model, tokenizer, {})
    lm, original = bytelm.load(tmp_path / "a"), LanguageModel(model, tokenizer)
    assert lm.config == model.config
    assert lm.score(TEXTS).total.nats == pytest.approx(original.score(TEXTS).total.nats, rel=1e-6)
    save_token_model(tmp_path / "b", model, BPETokenizer(train_bpe(TEXTS[:2], 280)), {})
    (tmp_path / "a" / "tokenizer.json").write_bytes((tmp_path / "b" / "tokenizer.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: digest .* of config\.json"):
        bytelm.load(tmp_path / "a")


def test_training_exports_what_it_trained(tokens, tmp_path):
    model, tokenizer = tokens
    save_token_model(tmp_path / "bpe", model, tokenizer, {})
    for config in (model.config, dataclasses.replace(token_twin(tiny_config(), tokenizer.vocab_size, 256))):
        module = ByteLMModule(config=config, tokenizer=tmp_path / "bpe")
        module.export(tmp_path / str(config.num_parameters()), {})
        assert bytelm.load(tmp_path / str(config.num_parameters())).config.num_parameters() == config.num_parameters()

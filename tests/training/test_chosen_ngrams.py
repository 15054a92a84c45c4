"""Training gives rows to n-grams of its text before the first step, once; what it wrote knows them."""

import dataclasses

import lightning as L
import pytest
import torch
from support import LIGHTNING_ADVICE, TEXTS, tiny_config

import bytelm
from bytelm.errors import ConfigError
from bytelm.hub.token_checkpoint import save_token_model
from bytelm.model.build import build_model
from bytelm.model.config import NgramConfig
from bytelm.model.ends import MergerConfig
from bytelm.model.twins import token_twin
from bytelm.nn.ngram import ngram_keys
from bytelm.tokenizer import BPETokenizer, train_bpe
from bytelm.training import ByteLMModule, CorpusData, InstructData, ngram_choice
from bytelm.training.callbacks import ExportModel
from bytelm.training.export import export_checkpoint
from bytelm.training.token_data import TokenData

pytestmark = LIGHTNING_ADVICE
HEADS = NgramConfig(orders=(2, 3, 5), rows=20, row_width=16, chosen=True)
MERGER = NgramConfig(orders=(2,), rows=9, chosen=True)


def config():
    heads = dataclasses.replace(tiny_config("chained", True).heads, tables=HEADS, mixed=True)
    return tiny_config(heads=heads, merger=MergerConfig(byte_width=16, tables=MERGER))


def trainer(folder, steps, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(
        accelerator="cpu", max_steps=steps, default_root_dir=folder, limit_val_batches=1, **quiet, **options
    )


def data_of(corpora):
    return CorpusData(train=corpora["train"], valid=corpora["valid"], window=48, batch_size=4)


def test_a_run_chooses_once_and_a_resumed_one_keeps_its_choice(corpora, tmp_path, monkeypatch):
    module, data = ByteLMModule(config=config()), data_of(corpora)
    first = trainer(tmp_path, 3, callbacks=[ExportModel()], enable_checkpointing=False)
    assert not module.model.heads.tables.is_chosen
    first.fit(module, data)
    symbols = data.training_symbols(1 << 20)
    ranked = ngram_choice.rank_ngrams(symbols, 256, (2, 3, 5), 57)
    for part, tables, num in ((module.model.heads, HEADS, 57), (module.model.merger, MERGER, 8)):
        kept = part.tables.keys_R.long() + 2**31
        assert set(ranked.best(tables.orders, num).tolist()) == set(kept.tolist())
    pair = torch.from_numpy(symbols[100:102].astype(int))
    assert int(ngram_keys(pair)) in (module.model.heads.tables.keys_R.long() + 2**31).tolist()
    lm = bytelm.load(tmp_path / "model")
    assert torch.equal(lm.model.heads.tables.keys_R, module.model.heads.tables.keys_R)
    first.save_checkpoint(tmp_path / "last.ckpt")
    monkeypatch.setattr(ngram_choice, "rank_ngrams", lambda *_: pytest.fail("chosen again"))
    again = ByteLMModule(config=config())
    trainer(tmp_path, 5, enable_checkpointing=False).fit(again, data, ckpt_path=tmp_path / "last.ckpt")
    assert torch.equal(again.model.heads.tables.keys_R, module.model.heads.tables.keys_R)
    begun = ByteLMModule(init_from=tmp_path / "model")
    trainer(tmp_path, 2, enable_checkpointing=False).fit(begun, data)
    assert torch.equal(begun.model.heads.tables.keys_R, module.model.heads.tables.keys_R)


def test_rows_that_are_chosen_learn(corpora, tmp_path):
    module = ByteLMModule(config=config())
    before = module.model.heads.tables.table.weight.detach().clone()
    trainer(tmp_path, 20, enable_checkpointing=False).fit(module, data_of(corpora))
    moved = (module.model.heads.tables.table.weight - before).abs().amax(-1) > 1e-6
    assert moved[:3].all(), "those of n-grams that were not chosen"
    assert moved[3:].float().mean() > 0.9


def test_the_twin_of_tokens_chooses_among_tokens(corpora, tmp_path):
    tokenizer = BPETokenizer(train_bpe(TEXTS, 300))
    tables = NgramConfig(orders=(1, 2), rows=12, chosen=True)
    twin = token_twin(tiny_config(), tokenizer.vocab_size, 64, tables=tables, head_tables=tables)
    save_token_model(tmp_path / "bpe", build_model(twin), tokenizer, {})
    module = ByteLMModule(config=twin, tokenizer=tmp_path / "bpe")
    data = TokenData(train=corpora["train"], valid=corpora["valid"], window=16, batch_size=4)
    trainer(tmp_path, 2, enable_checkpointing=False).fit(module, data)
    ranked = ngram_choice.rank_ngrams(data.tokens("train"), tokenizer.vocab_size, (1, 2), 22)
    best = ranked.best((1, 2), 22)
    assert len(best) > 0
    for part in (module.model.merger.tables, module.model.state_tables):
        assert set(best.tolist()) <= set((part.keys_R.long() + 2**31).tolist())


def test_pairs_have_no_text_to_choose_from(tmp_path):
    with pytest.raises(ConfigError, match=r"tables\.chosen: found true without a text"):
        ngram_choice.choose_ngrams(build_model(config()), InstructData(pairs=tmp_path))


def test_loaders_without_a_data_module_have_no_text_to_choose_from(corpora, tmp_path):
    data = data_of(corpora)
    data.setup("fit")
    with pytest.raises(ConfigError, match=r"tables\.chosen: found true without a text"):
        trainer(tmp_path, 1).fit(ByteLMModule(config=config()), data.train_dataloader(), data.val_dataloader())


def test_a_checkpoint_is_exported_in_four_bits(corpora, tmp_path):
    module = ByteLMModule(config=config())
    first = trainer(tmp_path, 2, enable_checkpointing=False)
    first.fit(module, data_of(corpora))
    first.save_checkpoint(tmp_path / "last.ckpt")
    for name in ("plain", "four"):
        assert export_checkpoint(tmp_path / "last.ckpt", tmp_path / name, four_bit_tables=name == "four") == 2
    plain, four = (bytelm.load(tmp_path / name) for name in ("plain", "four"))
    assert four.score(TEXTS).total.nats == pytest.approx(plain.score(TEXTS).total.nats, rel=0.05)
    assert torch.equal(plain.model.heads.tables.keys_R, four.model.heads.tables.keys_R)

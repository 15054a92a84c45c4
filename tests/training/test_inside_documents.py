import dataclasses
import json

import numpy as np
import pytest
import torch
from support import TEXTS, tiny_config

from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError
from bytelm.model.axes import AlibiConfig
from bytelm.model.byte_lm import cross_entropy
from bytelm.model.twins import token_twin
from bytelm.tokenizer import BPETokenizer, Tokenizer, train_bpe, vocabulary_to_dict
from bytelm.training import ByteLMModule


def batch(tokenizer, opening, ends, size):
    """A row of documents, each after what stands before it."""
    row = np.concatenate([np.concatenate((opening, tokenizer.encode(text), ends)) for text in TEXTS])
    return torch.from_numpy(row[:size].astype(np.int64))[None]


def loss_of(module, bytes_BL):
    return module.loss(module.model, bytes_BL, 0.0, None, module.boundaries)[0]


@pytest.mark.parametrize("name", ["dense-ja", "utf8"])
def test_the_switch_changes_what_is_trained_and_nothing_else(name):
    tokenizer = Tokenizer(get_encoding(name))
    rows = batch(tokenizer, tokenizer.bos_patch(4), tokenizer.eos, 132)
    off, on = (ByteLMModule(config=tiny_config(), encoding=name, inside_documents=x) for x in (False, True))
    assert off.boundaries is None
    plain = cross_entropy(*off.model.predict(rows)).mean()
    assert torch.equal(loss_of(off, rows), plain)
    h, windows, targets = on.model.read(rows, on.boundaries)
    inside = cross_entropy(on.model.heads(h, windows, targets), targets).mean()
    assert torch.equal(loss_of(on, rows), inside)
    assert not torch.equal(plain, inside)
    on.boundaries = None
    assert torch.equal(loss_of(on, rows), plain)


def test_recomputed_blocks_see_the_same_documents():
    tokenizer = Tokenizer(get_encoding("dense-ja"))
    rows = batch(tokenizer, tokenizer.bos_patch(4), tokenizer.eos, 132)
    found = []
    for again in (False, True):
        module = ByteLMModule(config=tiny_config(), inside_documents=True, activation_checkpointing=again)
        loss = loss_of(module, rows)
        found.append([loss, *torch.autograd.grad(loss, list(module.model.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_documents_of_tokens_begin_with_theirs(tmp_path):
    vocabulary = train_bpe(TEXTS, 300)
    (tmp_path / "tokenizer.json").write_text(json.dumps(vocabulary_to_dict(vocabulary)), encoding="utf-8")
    tokenizer = BPETokenizer(vocabulary)
    config = token_twin(tiny_config(), tokenizer.vocab_size, 256)
    module = ByteLMModule(config=config, tokenizer=tmp_path, inside_documents=True)
    rows = batch(tokenizer, [tokenizer.bos_id], [], 97)
    starts = module.boundaries.starts(rows[:, :-1, None])
    assert torch.equal(starts, rows[:, :-1] == tokenizer.bos_id)
    assert torch.isfinite(loss_of(module, rows))


def test_what_cannot_be_kept_apart_is_refused():
    with pytest.raises(ConfigError, match=r"model\.inside_documents: found encoding 'utf16'"):
        ByteLMModule(config=tiny_config(), encoding="utf16", inside_documents=True)
    alibi = dataclasses.replace(tiny_config(), position=AlibiConfig())
    with pytest.raises(ConfigError, match=r"model\.inside_documents: found true with position 'alibi'"):
        ByteLMModule(config=alibi, inside_documents=True)

import dataclasses
import json

import numpy as np
import pytest
import torch

import bytelm
from bytelm.errors import CheckpointError, ConfigError
from bytelm.hub.export_family import check_exportable, export_llama
from bytelm.hub.families import LLAMA
from bytelm.model.build import build_model
from bytelm.model.config import RotaryConfig
from bytelm.model.presets import PRESETS
from bytelm.model.twins import token_twin
from bytelm.tokenizer import BPETokenizer, train_bpe

TEXTS = ["港の朝は早い。", "山の駅で電車を待つ。", "the old mill by the river"] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer(train_bpe(TEXTS, 300))


def twin(tokenizer, **changes):
    config = dataclasses.replace(PRESETS["tiny"], position=RotaryConfig(base=5000.0))
    return dataclasses.replace(token_twin(config, tokenizer.vocab_size, 64), **changes)


def test_a_folder_gives_the_model_back_to_the_bit(tmp_path, tokenizer):
    model = build_model(twin(tokenizer), seed=3)
    export_llama(tmp_path / "model", model, tokenizer, {"step": 7})
    lm = bytelm.load(tmp_path / "model")
    assert lm.family == LLAMA.name
    assert lm.config == model.config
    assert lm.tokenizer.vocabulary == tokenizer.vocabulary
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in lm.model.state_dict().items())
    assert json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["provenance"] == {"step": 7}
    export_llama(tmp_path / "model", model, tokenizer, {"step": 8})  # its own folder is replaced


def test_transformers_reads_the_same_model(tmp_path, tokenizer):
    transformers = pytest.importorskip("transformers")
    model = build_model(twin(tokenizer), seed=3)
    export_llama(tmp_path / "model", model, tokenizer, {})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    ids = torch.from_numpy(np.append(tokenizer.bos_id, tokenizer.encode(TEXTS[0])))[None]
    with torch.no_grad():
        expected = theirs(ids).logits
        ours = model.heads.logits(model(ids[..., None]))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_a_folder_of_somebody_else_stays(tmp_path, tokenizer):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="expected 'bytelm-tokens'"):
        export_llama(tmp_path, build_model(twin(tokenizer)), tokenizer, {})


def test_what_the_layout_has_no_words_for_is_refused(tokenizer):
    config = twin(tokenizer)
    check_exportable(config)
    for changes, message in (
        ({"position": RotaryConfig(width=8)}, "position.width: found 8"),
        ({"wiring": "parallel"}, "wiring: found 'parallel'"),
        ({"heads": dataclasses.replace(config.heads, scale=0.5)}, "heads.scale: found 0.5"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_exportable(dataclasses.replace(config, **changes))

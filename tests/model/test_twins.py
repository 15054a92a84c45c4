import dataclasses

import numpy as np
import pytest
import torch
from support import TEXTS, tiny_config

from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError
from bytelm.hub import LanguageModel
from bytelm.model.build import build_model
from bytelm.model.ends import NextPatchConfig
from bytelm.model.presets import PRESETS
from bytelm.model.twins import next_byte_twin, token_twin
from bytelm.tokenizer import BPETokenizer, Tokenizer, train_bpe

BYTES = ["tiny", "small", "base", "1.3b", "6.5b"]


@pytest.mark.parametrize("name", BYTES)
def test_twins_have_the_same_body_and_count_themselves(name):
    config = dataclasses.replace(PRESETS[name])
    for twin in (next_byte_twin(config), token_twin(config, 8_000, 4_096)):
        assert twin.num_body_parameters() == config.num_body_parameters()
        assert twin.laws == ("next",)
        model = build_model(twin, device="meta")
        assert sum(p.numel() for p in model.parameters()) == twin.num_parameters()
        ours = {n: p.shape for n, p in build_model(config, device="meta").blocks.named_parameters()}
        assert {n: p.shape for n, p in model.blocks.named_parameters()} == ours


def test_what_reads_inside_of_a_patch_is_left_out():
    config = tiny_config("chained", True, next_patch=NextPatchConfig())
    twin = next_byte_twin(config)
    assert (twin.next_patch, twin.merger.tables, twin.patch, twin.context) == (None, None, 1, config.context)


def test_what_has_no_twins_is_refused():
    for config in (PRESETS["gptj-toy"], next_byte_twin(tiny_config())):
        for make in (next_byte_twin, lambda c: token_twin(c, 300, 64)):
            with pytest.raises(ConfigError, match="patch: found 1 with a merger of kind"):
                make(config)


@pytest.mark.parametrize("name", ["dense-ja", "utf8", "utf16"])
def test_the_next_byte_twin_scores_and_generates_what_a_plain_forward_says(name):
    """BOS is what a corpus has before a text, four bytes, though a position has one."""
    encoding = get_encoding(name)
    model = build_model(next_byte_twin(tiny_config()), seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.dim() > 1 else 1.0)
    lm = LanguageModel(model, Tokenizer(encoding))
    bos = encoding.controls["<|bos|>"] * (4 // len(encoding.controls["<|bos|>"]))

    def logits(data):
        row = torch.from_numpy(np.frombuffer(data, np.uint8).astype(np.int64))[None, :, None]
        with torch.no_grad():
            return model.heads.step(model(row), row, row[..., :0])[0]

    text = TEXTS[0][:12]
    data = encoding.encode(text).tobytes()
    law = logits(bos + data)[3:-1].log_softmax(-1)
    expected = -law[torch.arange(len(data)), list(data)].sum()
    assert lm.score([text]).total.nats == pytest.approx(float(expected), rel=1e-5)
    out = lm.generate([text, ""], max_new_tokens=12)
    for prompt, found in zip([data, b""], out.ids, strict=True):
        row = bos + prompt
        for symbol in found.tolist():
            assert symbol == int(logits(row)[-1].argmax())
            row += bytes([symbol])


def test_the_twin_of_tokens_is_one_with_a_row_for_each():
    tokenizer = BPETokenizer(train_bpe(TEXTS, 300))
    twin = token_twin(tiny_config(), tokenizer.vocab_size, 77)
    lm = LanguageModel(build_model(twin, seed=2), tokenizer, "llama")
    assert twin.context == 77
    assert len(lm.generate([TEXTS[0]], max_new_tokens=5).ids[0]) == 5

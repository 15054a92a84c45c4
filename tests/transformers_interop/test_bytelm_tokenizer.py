"""The tokenizer under the interface of transformers."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from bytelm.errors import EncodingError

TEXT = "雨の日の図書館には、紙と木の匂いがする。\n\tA b"


@pytest.fixture(scope="session", name="tokenizer")
def fixture_tokenizer(wide):
    return AutoTokenizer.from_pretrained(wide[1])


@pytest.fixture(scope="session", name="ours")
def fixture_ours(wide):
    return wide[0].tokenizer


def test_ids_are_bytes_of_the_encoding_behind_bos(tokenizer, ours):
    plain = ours.encode(TEXT).tolist()
    assert tokenizer(TEXT, add_special_tokens=False)["input_ids"] == plain
    assert tokenizer(TEXT)["input_ids"] == [*ours.opening(4).tolist(), *plain]
    assert tokenizer(tokenizer.bos_token + TEXT, add_special_tokens=False)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert len(tokenizer.encode(tokenizer.eos_token, add_special_tokens=False)) == ours.unit > 1
    assert len(tokenizer) == tokenizer.vocab_size == 256


def test_controls_in_text(tokenizer, ours):
    text = f"月{tokenizer.eos_token}日<|user1|>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == ours.encode(text, allowed_controls="all").tolist()
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == "月日"
    as_text = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert as_text == ours.encoding.encode(text).tolist()
    assert tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True) == [
        *[0] * len(ours.encode("月")), *[1] * ours.unit, *[0] * len(ours.encode("日")), *[1] * ours.unit
    ]  # fmt: skip


@given(text=st.text())
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == tokenizer.bos_token + text


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_whole_words(tokenizer, ours, side):
    found = tokenizer([TEXT, "朝"], padding="longest", padding_side=side, return_tensors="np")
    pad = ours.encode(ours.pad_token, allowed_controls="all")
    filler = found["input_ids"][1][found["attention_mask"][1] == 0]
    assert len(filler)
    assert np.array_equal(filler, np.resize(pad, len(filler)))
    assert tokenizer.batch_decode(found["input_ids"], skip_special_tokens=True) == [TEXT, "朝"]
    assert (found["attention_mask"][1][0] == 0) == (side == "left")


def test_a_character_that_is_cut_is_left_out(tokenizer):
    ids = tokenizer("月日", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids[:-1]) == "月"
    assert tokenizer.decode([]) == ""


def test_files_copies_and_pickles(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for again in (
        AutoTokenizer.from_pretrained(tmp_path),
        pickle.loads(pickle.dumps(tokenizer)),
        copy.deepcopy(tokenizer),
    ):
        assert again(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
        assert again.decode(tokenizer(TEXT)["input_ids"]) == tokenizer.bos_token + TEXT
        assert again.padding_side == "left"


def test_collators(tokenizer):
    rows = [tokenizer(text) for text in (TEXT, "朝")]
    batch = DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)
    assert batch["input_ids"].shape == batch["labels"].shape


def test_what_it_refuses(tokenizer):
    with pytest.raises(EncodingError, match="'<new>': found a new one"):
        tokenizer.add_tokens(["<new>"])
    with pytest.raises(EncodingError, match="expected bytes"):
        tokenizer.decode([256])
    with pytest.raises(EncodingError, match="surrogate"):
        tokenizer("\ud800")
    assert tokenizer.add_tokens(["<|eos|>"]) == 0

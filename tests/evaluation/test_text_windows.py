"""Windows hold every character once, and their likelihoods are those of one symbol at a time, from uncached logits."""

import numpy as np
import pytest
import torch
from bpe_models import CONTEXT, folder_of
from hypothesis import given
from hypothesis import strategies as st
from support import BOS, LAWS, TEXTS, Uncached, tiny_model

import bytelm
from bytelm.encoding import get_encoding
from bytelm.errors import DecodingError, EncodingError
from bytelm.evaluation import text_windows
from bytelm.evaluation.text_windows import TextWindow, count_symbols, cut_windows, score_windows
from bytelm.hub import LanguageModel
from bytelm.tokenizer import Tokenizer

DOCUMENTS = [f"{TEXTS[0]}\n{TEXTS[1][:9]}", "A boat, 二つの舟。", "雪"]


def windows_of(window, context, documents=DOCUMENTS):
    return [one for n, text in enumerate(documents) for one in cut_windows(f"file:{n}", text, window, context)]


@given(st.text(max_size=40), st.integers(1, 45), st.integers(0, 45))
def test_windows_put_together_are_the_document(text, window, context):
    found = cut_windows("file:1", text, window, context)
    assert "".join(one.text for one in found) == text
    assert all(len(one.text) == window for one in found[:-1])
    assert all(0 < len(one.text) <= window for one in found)
    for number, one in enumerate(found):
        assert (one.place, one.begin) == ("file:1", number * window)
        assert len(one.context) == min(context, one.begin)
        assert text[: one.begin].endswith(one.context)


def bytes_by_hand(model, encoding, law, windows):
    """Nats of all windows: the law's logits after BOS, the context and the bytes before, for each byte."""
    total, uncached = 0.0, Uncached(model)
    for one in windows:
        committed = [*BOS.tolist(), *encoding.encode(one.context).tolist()]
        start = len(committed)
        for byte in encoding.encode(one.text).tolist():
            total -= float(uncached.logits(law, committed, start).double().log_softmax(-1)[byte])
            committed.append(byte)
    return total


@pytest.mark.parametrize(("law", "kind", "tables"), LAWS)
def test_bits_of_bytes_are_those_of_one_byte_at_a_time(law, kind, tables):
    model, encoding = tiny_model(kind, tables), get_encoding("dense-ja")
    lm = LanguageModel(model, tokenizer := Tokenizer(encoding))
    tokenizer.bos_patch = lambda num_ids=4: BOS[:num_ids]
    windows = windows_of(7, 5)
    steps = []
    found = score_windows(lm, windows, law, steps.append)
    nats = bytes_by_hand(model, encoding, law, windows)
    text = "".join(DOCUMENTS)
    assert found.nats == pytest.approx(nats, rel=1e-6)
    assert found.bits_per_char == pytest.approx(nats / np.log(2) / len(text), rel=1e-6)
    assert found.bits_per_byte == pytest.approx(nats / np.log(2) / len(text.encode()), rel=1e-6)
    assert sum(steps) == len(windows)
    assert count_symbols("m", lm, windows) == len(encoding.encode(text))


@pytest.fixture(scope="module")
def tokens():
    """A toy GPT-J with a BPE, and transformers' own model of the same folder."""
    from transformers import GPTJForCausalLM

    return bytelm.load(folder_of("gptj")), GPTJForCausalLM.from_pretrained(folder_of("gptj"))


@torch.no_grad()
def test_bits_of_tokens_are_those_of_another_implementation(tokens):
    lm, theirs = tokens
    windows, nats, num = windows_of(7, 5), 0.0, 0
    for one in windows:
        before = lm.tokenizer.encode(one.context).tolist() or [lm.tokenizer.bos_id]
        own = lm.tokenizer.encode(one.text).tolist()
        logits = (
            theirs(torch.tensor([before + own])).logits[0, len(before) - 1 : -1, : lm.tokenizer.vocab_size].double()
        )
        nats -= float(logits.log_softmax(-1)[torch.arange(len(own)), own].sum())
        num += len(own)
    found = score_windows(lm, windows)
    assert found.nats == pytest.approx(nats, rel=1e-6)
    assert found.num_chars == len("".join(DOCUMENTS))
    assert count_symbols("m", lm, windows) == num


def test_windows_are_scored_a_few_at_a_time(monkeypatch):
    lm = LanguageModel(tiny_model("chained"), Tokenizer(get_encoding("dense-ja")))
    windows, steps = windows_of(6, 4), []
    whole = score_windows(lm, windows)
    monkeypatch.setattr(text_windows, "_MOST_LOGITS", 256 * 25)
    assert score_windows(lm, windows, on_progress=steps.append).nats == pytest.approx(whole.nats, rel=1e-7)
    assert sum(steps) == len(windows)
    assert 3 < len(steps) < len(windows)


def test_a_window_fills_the_context_and_no_more():
    """The longest that fits is read in one piece; one more byte is refused, and nothing is cut."""
    encoding = get_encoding("utf8")
    model = tiny_model("chained", context=48)
    lm = LanguageModel(model, tokenizer := Tokenizer(encoding))
    tokenizer.bos_patch = lambda num_ids=4: BOS[:num_ids]
    windows = cut_windows("notes.txt:3", "雪の" * 12, 10, 4)
    assert [3 * len(one.context + one.text) + 4 for one in windows] == [34, 46, 28]
    count_symbols("small", lm, windows)
    assert score_windows(lm, windows, "chain").nats == pytest.approx(
        bytes_by_hand(model, encoding, "chain", windows), rel=1e-6
    )
    count_symbols("small", lm, cut_windows("notes.txt:3", "a" * 44, 44, 0))
    with pytest.raises(
        DecodingError,
        match=r"notes.txt:3: model small: characters 10 to 21 with 4 before them make 33 \+ 12 bytes and 4 of BOS, "
        "expected at most the model's context of 48: ",
    ):
        count_symbols("small", lm, [*windows, TextWindow("notes.txt:3", 10, "雪の雪の", "雪の" * 5 + "雪")])


def test_bos_of_tokens_counts_only_where_nothing_stands_before(tokens):
    (lm, _), half = tokens, CONTEXT // 2
    assert count_symbols("t", lm, cut_windows("f:1", "7" * (CONTEXT - 1), CONTEXT, 0)) == CONTEXT - 1
    with pytest.raises(DecodingError, match=rf"with 0 before them make {CONTEXT} \+ 0 tokens and 1 of BOS"):
        count_symbols("t", lm, cut_windows("f:1", "7" * CONTEXT, CONTEXT, 0))
    assert count_symbols("t", lm, cut_windows("f:1", "7" * CONTEXT, half, half)) == CONTEXT
    with pytest.raises(DecodingError, match=rf"make {half + 1} \+ {half} tokens, expected at most .* of {CONTEXT}"):
        count_symbols("t", lm, cut_windows("f:1", "7" * (CONTEXT + 2), half + 1, half))


def test_a_control_in_the_text_of_a_byte_model_is_refused_by_its_place():
    lm = LanguageModel(tiny_model("chained"), Tokenizer(get_encoding("dense-ja")))
    with pytest.raises(EncodingError, match=r"file:0: model m: .*<\|eos\|>"):
        count_symbols("m", lm, windows_of(20, 5, ["雪 <|eos|>"]))

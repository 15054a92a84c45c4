import numpy as np
import pytest
import torch
from forced_model import cyclic_model
from support import TEXTS

from bytelm.encoding import get_encoding
from bytelm.errors import ConfigError, DecodingError, EncodingError, LawError
from bytelm.hub import LanguageModel
from bytelm.tokenizer import Tokenizer

SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 30, "seed": 4}
EVERY_LAW = [("independent", "product"), ("independent", "next"), ("chained", "chain"), ("chained", "next")]


def distinct_characters(encoding, number, word_length):
    """Characters whose code words have this length and share no byte."""
    found, used = [], set()
    for code_point in range(0x4E00, 0x9FFF):
        word = encoding.encode(chr(code_point)).tolist()
        if len(word) == word_length and len(set(word)) == word_length and not used & set(word):
            found.append(chr(code_point))
            used |= set(word)
            if len(found) == number:
                return found
    raise AssertionError("not enough characters")


@pytest.fixture(scope="module", params=EVERY_LAW, ids=str)
def parrot(request, dense):
    """A model that says nine kanji of two bytes for ever, whatever the prompt; its text; a law."""
    kind, law = request.param
    text = "".join(distinct_characters(dense, 9, 2))
    cycle = dense.encode(text).tolist()
    entry = [b for b in range(256) if b not in cycle]
    return LanguageModel(cyclic_model(kind, cycle, entry), Tokenizer(dense)), text, law


def test_the_forced_model_says_its_text(parrot):
    lm, text, law = parrot
    for prompt in ("", "あ", "あい", "あいう", "。。。。"):
        assert lm.generate([prompt], max_new_tokens=40, law=law).texts == [(text * 3)[:20]]


@pytest.mark.parametrize("place", range(9))
def test_stop_strings_end_a_row_wherever_patches_fall(parrot, place):
    lm, text, law = parrot
    size = 1 + place % 3
    stop = (text + text)[place : place + size]
    out = lm.generate(["", "あ"], max_new_tokens=60, law=law, stop=["never", stop])
    expected = (text + text)[: (text + text).index(stop) + size]
    assert out.texts == [expected] * 2
    assert out.finish == ["stop", "stop"]
    assert [len(ids) for ids in out.ids] == [2 * len(expected)] * 2


def test_a_stop_whose_bytes_occur_across_words_does_not_stop(parrot):
    """The last byte of a kanji, taken alone, is the code of another character."""
    lm, text, law = parrot
    last = lm.tokenizer.encoding.encode(text[3])[-1:]
    other = lm.tokenizer.encoding.decode(last)
    assert len(other) == 1
    assert other not in text
    out = lm.generate([""], max_new_tokens=30, law=law, stop=[other])
    assert out.texts == [(text * 2)[:15]]
    assert out.finish == ["length"]
    both = lm.generate([""], max_new_tokens=30, law=law, stop=[other, text[3]])
    assert both.texts == [text[:4]]


def test_a_row_that_stops_leaves_the_others_alone(parrot):
    lm, text, law = parrot
    word = lm.tokenizer.encoding.encode(text[2])
    prompts = ["", text[:4], text[:1]]
    out = lm.generate(prompts, max_new_tokens=25, law=law, stop=[text[2]])
    assert out.texts == [text[:3], (text * 2)[4 : 9 + 3], text[1:3]]
    assert len(word) == 2
    free = lm.generate(prompts, max_new_tokens=25, law=law)
    assert [len(ids) for ids in free.ids] == [25] * 3


@pytest.mark.parametrize("kind", ["independent", "chained"])
@pytest.mark.parametrize("place", range(5))
def test_eos_stops_and_is_not_text(dense, kind, place):
    text = "".join(distinct_characters(dense, 3, 2))
    cycle = dense.encode(text).tolist()
    cycle.insert(place, int(dense.encode("。")[0]))
    eos = dense.controls["<|eos|>"][0]
    whole = [*cycle, eos]
    entry = [b for b in range(256) if b not in whole]
    lm = LanguageModel(cyclic_model(kind, whole, entry), Tokenizer(dense))
    for law in lm.laws:
        out = lm.generate(["", "あいう"], max_new_tokens=40, law=law)
        assert [ids.tolist() for ids in out.ids] == [whole, whole]
        assert out.finish == ["stop", "stop"]
        assert out.texts == [dense.decode(np.array(cycle, np.uint8), errors="replace")] * 2


def test_a_control_can_be_a_stop(dense):
    user = dense.controls["<|user0|>"][0]
    cycle = [*dense.encode("あい").tolist(), user]
    lm = LanguageModel(cyclic_model("chained", cycle, [b for b in range(256) if b not in cycle]), Tokenizer(dense))
    out = lm.generate([""], max_new_tokens=9, stop=["<|user0|>"])
    assert (out.texts, out.finish, out.ids[0].tolist()) == (["あい"], ["stop"], cycle)
    assert lm.generate([""], max_new_tokens=9).texts == ["あい" * 3]


@pytest.mark.parametrize("limit", range(1, 10))
def test_the_length_limit_is_exact(random_lm, limit):
    for law in random_lm.laws:
        out = random_lm.generate(["あい", "", "朝の"], max_new_tokens=limit, law=law, **SAMPLED)
        longer = random_lm.generate(["あい", "", "朝の"], max_new_tokens=10, law=law, **SAMPLED)
        for ids, more, finish, nats, trace in zip(out.ids, longer.ids, out.finish, out.nats, out.trace, strict=True):
            assert ids.tolist() == more[: len(ids)].tolist()
            assert finish == "stop" or len(ids) == limit
            assert len(nats) == len(trace.forward) == len(trace.offset) == len(ids)


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_streamed_pieces_add_up_to_the_texts(lm, options):
    for law in lm.laws:
        pieces = ["", "", ""]
        calls = []

        def streamer(row, text, pieces=pieces, calls=calls):
            assert text
            pieces[row] += text
            calls.append(row)

        out = lm.generate([TEXTS[0][:5], "", TEXTS[1][:8]], max_new_tokens=31, law=law, streamer=streamer, **options)
        assert pieces == out.texts
        assert len(calls) > 6


def test_streamed_pieces_of_random_bytes_add_up_too(random_lm):
    lm = LanguageModel(random_lm.model, Tokenizer(get_encoding("utf8")))
    for law in lm.laws:
        for seed in range(3):
            pieces = ["", ""]

            def streamer(row, text, pieces=pieces):
                pieces[row] += text

            out = lm.generate(
                ["", "朝"], max_new_tokens=30, law=law, streamer=streamer, do_sample=True, temperature=3.0, seed=seed
            )
            assert pieces == out.texts
            assert "\ufffd" in "".join(out.texts), "of bytes that are malformed for good"


def test_a_character_that_the_limit_cuts_is_in_the_ids_alone(lm):
    text = "朝の海は静かで🐱"
    ids = lm.tokenizer.encode(text)
    ends = [*np.flatnonzero(lm.tokenizer.encoding.char_starts(ids))[1:].tolist(), len(ids)]

    def force(seen, scores):
        return scores + 1e6 * (torch.arange(256) == int(ids[min(seen.shape[1], len(ids) - 1)]))

    for law in lm.laws:
        for length in range(1, len(ids) + 1):
            shown = []
            out = lm.generate(
                [""],
                max_new_tokens=length,
                law=law,
                logits_processor=force,
                streamer=lambda _, text, shown=shown: shown.append(text),
            )
            assert out.ids[0].tolist() == ids[:length].tolist()
            whole = sum(end <= length for end in ends)
            assert out.texts[0] == "".join(shown) == text[:whole]
            assert "".join(span[0] for span in out.spans(0)) == text[:whole]


def test_a_batch_equals_each_prompt_alone(lm):
    prompts = ["", TEXTS[2], "あい"]
    for law in lm.laws:
        out = lm.generate(prompts, max_new_tokens=14, law=law, do_sample=True, seed=[5, 6, 7])
        for row, prompt in enumerate(prompts):
            alone = lm.generate([prompt], max_new_tokens=14, law=law, do_sample=True, seed=[5 + row])
            assert alone.ids[0].tolist() == out.ids[row].tolist()
            assert alone.texts[0] == out.texts[row]


def test_drafting_does_not_show(lm):
    prompts = [TEXTS[0][:6], "", TEXTS[3][:9]]
    for options in ({}, {"do_sample": True, "top_p": 0.8, "temperature": 1.3}):
        plain, drafted, auto = (
            lm.generate(prompts, max_new_tokens=16, law="next", draft=d, **options) for d in ("none", "heads", "auto")
        )
        assert plain.texts == drafted.texts == auto.texts
        assert [i.tolist() for i in plain.ids] == [i.tolist() for i in drafted.ids]
        assert (plain.draft, drafted.draft, auto.draft) == ("none", "heads", "auto")
        assert sum(drafted.stats.row_forwards) < sum(plain.stats.row_forwards)
        assert drafted.chars_per_forward > plain.chars_per_forward
        assert drafted.law == "next"


def test_nats_sum_to_the_score_of_the_text(lm):
    """For rows whose symbols are the code of their text."""
    checked = 0
    for law in lm.laws:
        prompts = [TEXTS[0][:4], "", "朝", TEXTS[1][:6], TEXTS[2][:5]]
        out = lm.generate(prompts, max_new_tokens=24, law=law, **SAMPLED)
        for prompt, text, ids, nats in zip(prompts, out.texts, out.ids, out.nats, strict=True):
            if lm.tokenizer.encoding.encode(text).tolist() == ids.tolist():
                score = lm.score([text], law=law, prompts=[prompt])
                assert score.total.nats == pytest.approx(nats.sum(), rel=1e-5)
                assert score.law == law
                checked += 1
    assert checked >= 4


def test_bad_requests(lm, random_lm):
    other = "chain" if lm.law == "product" else "product"
    with pytest.raises(LawError, match=f"law '{other}'"):
        lm.generate(["a"], law=other)
    with pytest.raises(LawError, match=f"law '{other}'"):
        lm.score(["a"], law=other)
    with pytest.raises(DecodingError, match=r"^prompt 1: .* expected at most the model's context of 256 bytes$"):
        lm.generate(["あ", "朝の港" * 120], max_new_tokens=8)
    with pytest.raises(EncodingError, match=r"^prompt 1: text index 2: found the lone surrogate U\+D800"):
        lm.generate(["あ", "あい\ud800"], max_new_tokens=8)
    with pytest.raises(EncodingError, match=r"^text 0: text index 0: found the lone surrogate"):
        lm.score(["\udfff"])
    with pytest.raises(EncodingError, match=r"^prompt 0: text index 1: found the control string <\|eos\|>"):
        lm.generate(["a<|eos|>"])
    with pytest.raises(DecodingError, match=r"^prompts: found none"):
        lm.generate([])
    with pytest.raises(DecodingError, match=r"^prompts?: found a string 'あ'"):
        lm.generate("あ")
    with pytest.raises(DecodingError, match=r"^stop 0: found an empty string"):
        lm.generate(["あ"], stop=[""])
    with pytest.raises(DecodingError, match="max_new: found 0"):
        lm.generate(["あ"], max_new_tokens=0)
    with pytest.raises(DecodingError, match=r"^draft 'heads': this model and law have no heads to draft with"):
        lm.generate(["あ"], draft="heads")
    with pytest.raises(ConfigError, match=r"^top_p: found 0"):
        lm.generate(["あ"], top_p=0.0)
    with pytest.raises(DecodingError, match=r"^prompts: found 1, expected one for each of 2 texts"):
        lm.score(["a", "b"], prompts=["c"])
    with pytest.raises(DecodingError, match=r"^texts?: found a string"):
        lm.score("あ")


def test_allowed_controls_reach_the_model(random_lm):
    with_control = random_lm.generate(["a<|user0|>"], max_new_tokens=8, allowed_controls={"<|user0|>"})
    assert with_control.ids[0].tolist() != random_lm.generate(["a"], max_new_tokens=8).ids[0].tolist()


@pytest.mark.parametrize("name", ["utf8", "utf16", "utf32", "ranked2"])
def test_every_encoding_generates_and_scores(name, random_lm):
    lm = LanguageModel(random_lm.model, Tokenizer(get_encoding(name)))
    for law in lm.laws:
        pieces = [""]

        def streamer(row, text, pieces=pieces):
            pieces[row] += text

        out = lm.generate(["朝a"], max_new_tokens=23, law=law, streamer=streamer, do_sample=True)
        assert out.texts == pieces
        assert lm.score(["朝の港"], law=law).total.num_utf8_bytes == 9


def test_scores_count_characters_and_utf8_bytes(lm):
    texts = ["朝の港", "", "a🌊"]
    scores = lm.score(texts)
    assert [s.num_chars for s in scores] == [3, 0, 2]
    assert [s.num_utf8_bytes for s in scores] == [9, 0, 5]
    assert scores[1].nats == 0
    assert np.isnan(scores[1].bits_per_char)
    assert np.isnan(scores[1].bits_per_byte)
    assert scores.total.nats == pytest.approx(sum(s.nats for s in scores), rel=1e-12)
    assert scores[0].bits_per_char == pytest.approx(scores[0].nats / np.log(2) / 3)
    assert scores.total.bits_per_byte == pytest.approx(scores.total.nats / np.log(2) / 14)
    for law in lm.laws:
        alone = [lm.score([t], law=law)[0].nats for t in texts]
        assert [s.nats for s in lm.score(texts, law=law)] == pytest.approx(alone, rel=1e-5)
    assert lm.score([]).total.nats == 0


def test_a_text_longer_than_the_context_is_scored(lm):
    text = "".join(TEXTS) * 6
    assert len(lm.tokenizer.encoding.encode(text)) > 2 * lm.config.context
    for law in lm.laws:
        total = lm.score([text], law=law)[0]
        assert total.num_chars == len(text)
        assert 0 < total.bits_per_char < 16

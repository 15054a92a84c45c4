"""Options of generate: stops of every kind, limits, sequences, constraints, streams; each acts at its symbol."""

import itertools
import re
import time

import numpy as np
import pytest
from forced_model import cyclic_model
from support import TEXTS

from bytelm.encoding import get_encoding
from bytelm.errors import DecodingError
from bytelm.hub import GenerationOptions, LanguageModel
from bytelm.hub.stopping import make_stops
from bytelm.tokenizer import Tokenizer

SAMPLED = {"do_sample": True, "seed": 4}
PROMPTS = [TEXTS[0][:5], "", TEXTS[1][:8]]


@pytest.fixture(scope="module", params=["independent", "chained"])
def counter(request, dense):
    """A model that goes round 24 bytes for ever, so that a stop can be put at every place of a step."""
    cycle = [int(dense.encode(c)[0]) for c in dict.fromkeys("のにいでしたはとてるをすながまかれうもこらりあさ")]
    cycle = [byte for byte in dict.fromkeys(cycle) if byte < dense.s]
    entry = [b for b in range(256) if b not in cycle]
    return LanguageModel(cyclic_model(request.param, cycle, entry), Tokenizer(dense)), cycle


STOPS = {
    "bytes": lambda ids: bytes(ids),
    "ids": lambda ids: list(ids),
    "array": lambda ids: np.array(ids),
    "list of ids": lambda ids: [list(ids), [1, 2, 3]],
    "callable": lambda ids: lambda row, generated: generated[-len(ids) :].tolist() == list(ids),
}
EVERY_PLACE = range(9, 21)
PLACES = {"bytes": [14], "ids": EVERY_PLACE, "array": [15], "list of ids": [17], "callable": EVERY_PLACE}
"""Bytes, arrays and lists of ids are made ids before decoding begins."""


@pytest.mark.parametrize("kind", STOPS)
@pytest.mark.parametrize("draft", ["none", "lookup", "heads", "self"])
def test_a_stop_acts_at_its_symbol_wherever_it_falls_in_a_step(counter, kind, draft):
    """Ids, log-probabilities, trace and streamed text end at the same place, at every offset in a unit or a draft."""
    lm, cycle = counter
    for law in lm.laws:
        if draft == "heads" and law != "next":
            continue
        for end in PLACES[kind]:
            pieces = []
            out = lm.generate(
                [""],
                max_new_tokens=60,
                law=law,
                draft=lm if draft == "self" else draft,
                stop=STOPS[kind](cycle[end - 2 : end]),
                streamer=lambda row, text, pieces=pieces: pieces.append(text),
            )
            assert out.ids[0].tolist() == cycle[:end]
            assert len(out.nats[0]) == len(out.trace[0].source) == end
            assert "".join(pieces) == out.texts[0] == lm.tokenizer.encoding.decode(np.array(cycle[:end], np.uint8))
            assert out.finish == ["stop"]


def test_eos_token_ids_are_those_of_transformers(counter):
    lm, cycle = counter
    for given, end in ((cycle[6], 7), ([cycle[9], cycle[4]], 5), ([[cycle[7], cycle[8]], [cycle[12]]], 9)):
        assert lm.generate([""], max_new_tokens=40, eos_token_id=given).ids[0].tolist() == cycle[:end]
    eos = lm.tokenizer.encoding.controls["<|eos|>"]
    for bad in ([[]], ["x"], [300]):
        with pytest.raises(DecodingError, match=r"^eos_token_id: found"):
            lm.generate([""], eos_token_id=bad)
    assert lm.generate([""], max_new_tokens=40, eos_token_id=list(eos)).finish == ["length"]


def test_no_end_before_min_new_tokens(dense):
    eos = dense.controls["<|eos|>"][0]
    cycle = [*dense.encode("の、に").tolist(), eos]
    lm = LanguageModel(cyclic_model("chained", cycle, [b for b in range(256) if b not in cycle]), Tokenizer(dense))
    for law in lm.laws:
        assert lm.generate([""], max_new_tokens=30, law=law).ids[0].tolist() == cycle
        for least in (3, 4, 6, 11):
            ids = lm.generate([""], max_new_tokens=30, law=law, min_new_tokens=least).ids[0].tolist()
            assert eos not in ids[:least]
            assert len(ids) > least or least == 3
    with pytest.raises(DecodingError, match=r"^min_new_tokens: found 31"):
        lm.generate([""], max_new_tokens=30, min_new_tokens=31)


def test_a_limit_of_characters_is_exact(lm):
    options = {"max_new_tokens": 60, "valid_text": True, **SAMPLED}
    for law in lm.laws:
        free = lm.generate(PROMPTS, law=law, **options)
        for most in range(1, 9):
            out = lm.generate(PROMPTS, law=law, max_new_chars=most, **options)
            assert out.texts == [text[:most] for text in free.texts]


def test_time_ends_rows_where_they_are(lm):
    def slow(input_ids, scores):
        time.sleep(0.02)
        return scores

    out = lm.generate(["", "朝"], max_new_tokens=150, max_time=0.2, logits_processor=slow, draft="none")
    assert set(out.finish) == {"time"}
    assert 1 <= len(out.ids[0]) < 150
    whole = lm.generate(["", "朝"], max_new_tokens=len(out.ids[0]), draft="none")
    assert out.ids[0].tolist() == whole.ids[0].tolist()
    with pytest.raises(DecodingError, match=r"^max_seconds: found 0"):
        lm.generate([""], max_time=0)


def test_sequences_of_a_prompt_share_its_prefill_and_differ(lm, monkeypatch):
    from bytelm.model.targets import _StreamTarget

    read = []
    plain = _StreamTarget._prefill
    monkeypatch.setattr(
        _StreamTarget, "_prefill", lambda self, streams, *rest: read.append(len(streams)) or plain(self, streams, *rest)
    )
    for law in lm.laws:
        read.clear()
        many = lm.generate(PROMPTS, max_new_tokens=13, law=law, num_return_sequences=3, do_sample=True, seed=[5, 6, 7])
        streams = 4 if law == "next" else 1
        assert read == [3 * streams]
        assert len(many.texts) == 9
        assert len({ids.tobytes() for ids in many.ids}) >= 5
        for p, prompt in enumerate(PROMPTS):
            alone = lm.generate(
                [prompt], max_new_tokens=13, law=law, num_return_sequences=3, do_sample=True, seed=[5 + p]
            )
            assert [i.tolist() for i in alone.ids] == [i.tolist() for i in many.ids[3 * p : 3 * p + 3]]
        first = lm.generate(PROMPTS, max_new_tokens=13, law=law, do_sample=True, seed=[5, 6, 7])
        assert [i.tolist() for i in first.ids] == [many.ids[3 * p].tolist() for p in range(3)]


def test_rows_that_finish_leave_the_batch(counter):
    """The forwards that follow have fewer rows: what a row costs ends with it."""
    lm, cycle = counter
    prompts = [bytes(cycle[:n]) for n in (20, 12, 4, 16)]
    texts = [lm.tokenizer.encoding.decode(np.frombuffer(p, np.uint8)) for p in prompts]
    rows = []
    for law in lm.laws:
        make = lm.make_target
        target = None

        def spy(wanted, make=make, **options):
            nonlocal target
            target = make(wanted, **options)
            read = target._forward
            target._forward = lambda model, windows, *rest: rows.append(len(windows)) or read(model, windows, *rest)
            return target

        lm.make_target = spy
        rows.clear()
        stop = lm.tokenizer.encoding.decode(np.array(cycle[22:23], np.uint8))
        out = lm.generate(texts, max_new_tokens=40, law=law, draft="none", stop=stop)
        del lm.make_target
        assert [len(ids) for ids in out.ids] == [3, 11, 19, 7]
        assert rows == sorted(rows, reverse=True)
        assert (rows[0], rows[-1]) == ((3, 1) if law != "next" else (4, 1))
        assert sum(rows) == sum(out.stats.row_forwards) - 4


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_valid_text_always_decodes(random_lm, utf8_lm, options):
    for lm, law in [(model, law) for model in (random_lm, utf8_lm) for law in model.laws]:
        for tokens in (1, 2, 7, 30):
            out = lm.generate(PROMPTS, max_new_tokens=tokens, law=law, valid_text=True, temperature=3.0, **options)
            for ids in out.ids:
                assert "\ufffd" not in lm.tokenizer.decode(ids, errors="strict", skip_controls=True)
        wild = lm.generate(PROMPTS, max_new_tokens=30, law=law, do_sample=True, temperature=3.0)
        if lm is utf8_lm:
            assert "\ufffd" in "".join(wild.texts), "without the mask this model writes no text"


@pytest.mark.parametrize("pattern", ["[0-9]{4}年[0-9]{1,2}月", "(はい|いいえ)。?", "[ぁ-ん]{3,5}", "a*🐱"])
def test_a_pattern_is_matched_whatever_drafts(random_lm, pattern):
    for law in random_lm.laws:
        drafts = ["none", "lookup", random_lm, *(["heads"] if law == "next" else [])]
        found = [
            random_lm.generate(PROMPTS, max_new_tokens=40, law=law, draft=draft, pattern=pattern, **SAMPLED).texts
            for draft in drafts
        ]
        assert all(re.fullmatch(pattern, text) for text in found[0])
        assert all(texts == found[0] for texts in found)


def test_processors_are_the_same_with_drafts(lm):
    options = {
        "repetition_penalty": 1.3,
        "frequency_penalty": 0.4,
        "presence_penalty": 0.7,
        "no_repeat_ngram_size": 4,
        "sequence_bias": {5: -2.0, (3, 4): 1.5},
        "logits_processor": lambda ids, scores: scores - 0.3 * (ids[0, -1:].sum() % 7) * (scores > 0),
        "do_sample": True,
        "seed": [4, 5, 6],
    }
    for law in lm.laws:
        plain = lm.generate(PROMPTS, max_new_tokens=24, law=law, draft="none", **options)
        drafted = lm.generate(PROMPTS, max_new_tokens=24, law=law, draft=[lm, "lookup"], **options)
        assert plain.texts == drafted.texts
        for row in range(3):
            alone = lm.generate([PROMPTS[row]], max_new_tokens=24, law=law, **{**options, "seed": [4 + row]})
            assert alone.texts == [plain.texts[row]]
        grams = [tuple(plain.ids[0][i : i + 4]) for i in range(21)]
        assert len(set(grams)) == len(grams)


def test_streams_are_the_text_piece_by_piece(lm):
    for law in lm.laws:
        for options in ({}, SAMPLED, {"stop": "の"}, {"draft": "lookup", "max_new_chars": 9}):
            pieces = list(lm.stream("朝の", max_new_tokens=40, law=law, **options))
            assert all(pieces)
            assert "".join(pieces) == lm.generate(["朝の"], max_new_tokens=40, law=law, **options).texts[0]
            assert len(pieces) > 1 or options.get("stop")
    with pytest.raises(DecodingError, match=r"^num_return_sequences: found 2, expected 1"):
        lm.stream("朝", num_return_sequences=2)


def test_a_character_is_streamed_as_soon_as_it_is_certain(lm):
    """After each forward the text so far lacks at most the bytes of one unfinished character."""
    for law in lm.laws:
        pieces, seen = [], []
        limit = {"max_new_tokens": 40, "law": law, **SAMPLED}
        out = lm.generate([""], streamer=lambda _, text, pieces=pieces: pieces.append(text), **limit)
        shown = list(itertools.accumulate(pieces))
        for forward in range(out.stats.forwards):
            ids = out.ids[0][out.trace[0].forward <= forward]
            complete = lm.tokenizer.encoding.complete(ids)
            seen.append(lm.tokenizer.decode(ids[:complete], errors="replace", skip_controls=True))
        assert [text for text in dict.fromkeys(seen) if text] == [
            text for text in dict.fromkeys(shown) if (text and text != out.texts[0]) or text == seen[-1]
        ]


def test_spans_and_their_picture(lm):
    out = lm.generate(PROMPTS, max_new_tokens=30, law="next", draft=lm, **SAMPLED)
    for row, text in enumerate(out.texts):
        spans = out.spans(row)
        shown = "".join(span[0] for span in spans)
        assert re.sub(r"<\|\w+\|>", "", shown) == text
        assert {span[1] for span in spans} <= {"law", "model"}
        assert [span[2] for span in spans] == sorted(span[2] for span in spans)
    picture = out._repr_html_()
    assert "title='model, forward" in picture
    assert "drafted symbols held" in picture


def test_statistics_are_whole(lm):
    out = lm.generate(PROMPTS, max_new_tokens=30, law="next", draft="heads", **SAMPLED)
    stats = out.stats
    assert (stats.verify, stats.exact) == ("exact", True)
    assert stats.seconds == pytest.approx(sum(vars(stats.parts).values()))
    assert min(vars(stats.parts).values()) > 0
    assert stats.by_drafter == {"heads": (sum(stats.judged_at), sum(stats.accepted_at))}
    assert all(0 <= share <= 1 for share in stats.acceptance_at)
    assert list(stats.judged_at) == sorted(stats.judged_at, reverse=True)
    assert out.num_utf8_bytes == sum(len(t.replace("\ufffd", "").encode()) for t in out.texts)
    assert stats.symbols == sum(map(len, out.ids))


def test_rules_for_study(lm):
    for law in lm.laws:
        plain = lm.generate(PROMPTS, max_new_tokens=20, law=law, draft=lm, verify="exact")
        for verify in ("rejection", "typical"):
            greedy = lm.generate(PROMPTS, max_new_tokens=20, law=law, draft=lm, verify=verify)
            assert greedy.texts == plain.texts, "without noise all rules are one"
            out = lm.generate(PROMPTS, max_new_tokens=20, law=law, draft=lm, verify=verify, **SAMPLED)
            assert out.stats.exact == (verify == "rejection")
    with pytest.raises(DecodingError, match=r"^verify: found 'hope', expected one of exact, rejection, typical$"):
        lm.generate([""], verify="hope")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 1}, r"^option temprature: unknown, expected temperature$"),
        ({"draft": "big"}, r"^draft: found 'big', expected one of auto, none, heads, lookup"),
        ({"draft": 7}, r"^draft: found int, expected a name"),
        ({"num_draft_tokens": 0}, r"^num_draft_tokens: found 0"),
        ({"stop": [1.5]}, r"^stop 0: found 1\.5, expected a string, bytes, ids or a callable$"),
        ({"stop": [[256]]}, r"^stop 0: found \(256,\), expected ids from 0 to 255$"),
        ({"max_new_chars": 0}, r"^max_new_chars: found 0"),
        ({"num_return_sequences": 0}, r"^num_sequences: found 0"),
        ({"seed": [1, 2]}, r"^seed: found a list of 2, expected one seed for each of 1 prompts$"),
        ({"pattern": "("}, r"\("),
    ],
)
def test_bad_options(lm, options, message):
    with pytest.raises(DecodingError, match=message):
        lm.generate(["朝"], **options)


def test_a_small_model_of_another_encoding_is_refused(lm, random_lm):
    from bytelm.encoding import get_encoding

    other = LanguageModel(random_lm.model, Tokenizer(get_encoding("utf8")))
    with pytest.raises(DecodingError, match=r"^draft: found a model of the encoding utf8 \(.{12}\), expected dense-ja"):
        lm.generate(["朝"], draft=other)


def test_every_option_is_documented():
    documented = GenerationOptions.__doc__
    for name in GenerationOptions.__dataclass_fields__:
        assert re.search(rf"\b{name}\b", documented), name


def test_ids_that_are_text_end_a_text_where_that_text_stands():
    """In a dense code the second byte of one character is the only one of another."""
    tokenizer = Tokenizer(get_encoding("dense-ja"))
    newline = tokenizer.encode("\n").tolist()
    character = next(c for c in map(chr, range(0x4E00, 0xA000)) if tokenizer.encode(c).tolist()[1:] == newline)
    generated = tokenizer.encode(f"あ{character}\n")
    stop = make_stops(tokenizer, [], [newline], None)[0][0]
    assert [stop(0, generated[:n]) for n in range(1, len(generated) + 1)] == [False] * (len(generated) - 1) + [True]
    half = tokenizer.encode(character).tolist()[:1]
    assert make_stops(tokenizer, [], [half], None)[0][0](0, generated[:-2]), (
        "what is no text matches wherever it stands"
    )

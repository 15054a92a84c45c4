"""Models of bytes as lm-evaluation-harness asks them."""

import math

import pytest
from harness_support import BytelmLM, requests
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.model import CachingLM
from support import TEXTS, tiny_model, trained_lm

from bytelm.encoding import get_encoding
from bytelm.errors import CheckpointError, ConfigError, DecodingError, EncodingError, LawError
from bytelm.hub import LanguageModel
from bytelm.tokenizer import Tokenizer

LAWS = [("independent", "product"), ("independent", "next"), ("chained", "chain"), ("chained", "next")]
TEXT = TEXTS[0] + TEXTS[1]


def loglikelihood(lm, *pairs):
    return lm.loglikelihood(requests("loglikelihood", *pairs))


@pytest.mark.parametrize(("kind", "law"), LAWS)
def test_loglikelihoods_are_those_of_score(kind, law):
    lm = trained_lm(kind)
    pairs = [(TEXT[:cut], TEXT[cut : cut + length]) for cut, length in [(0, 5), (7, 9), (7, 2), (11, 1), (7, 0)]]
    pairs.append((" trailing ", "  spaces\n"))
    found = loglikelihood(BytelmLM(lm, law=law, batch_size=2), *pairs)
    for (context, continuation), (log_p, greedy) in zip(pairs, found, strict=True):
        assert log_p == pytest.approx(-lm.score([continuation], prompts=[context], law=law)[0].nats, abs=1e-4)
        num = max(1, len(lm.tokenizer.encode(continuation)))
        written = lm.generate([context], law=law, max_new_tokens=num).ids[0].tolist()
        assert greedy == (
            written[: len(lm.tokenizer.encode(continuation))] == lm.tokenizer.encode(continuation).tolist()
        )


@given(st.integers(0, len(TEXT)), st.integers(0, len(TEXT)))
def test_next_adds_up_over_every_split(first, second):
    """log p(b | a) + log p(c | ab) = log p(bc | a), wherever a text is cut."""
    lm = BytelmLM(trained_lm("chained"), law="next")
    first, second = sorted((first, second))
    parts = TEXT[:first], TEXT[first:second], TEXT[second:]
    (whole, _), (left, _), (right, _) = loglikelihood(
        lm, (parts[0], parts[1] + parts[2]), (parts[0], parts[1]), (parts[0] + parts[1], parts[2])
    )
    assert left + right == pytest.approx(whole, abs=1e-3)


@pytest.mark.parametrize("law", ["chain", "next"])
def test_what_generation_writes_is_greedy(law):
    lm = trained_lm("chained")
    for context in (TEXTS[0][:9], TEXTS[2][:6]):
        text = lm.generate([context], law=law, max_new_tokens=24).texts[0]
        other = text[:-1] + ("無" if text[-1] != "無" else "有")
        (_, greedy), (_, not_greedy) = loglikelihood(BytelmLM(lm, law=law), (context, text), (context, other))
        assert (greedy, not_greedy) == (True, False)


def test_equal_requests_are_asked_once(monkeypatch):
    lm, asked = trained_lm("chained"), []
    really = LanguageModel.score_ids
    monkeypatch.setattr(
        LanguageModel,
        "score_ids",
        lambda self, contexts, *args, **kw: asked.append(len(contexts)) or really(self, contexts, *args, **kw),
    )
    pairs = [(TEXT[:9], TEXT[9:12]), (TEXT[:9], TEXT[9:13]), (TEXT[:9], TEXT[9:12])]
    found = loglikelihood(BytelmLM(lm), *pairs)
    assert found[0] == found[2] != found[1]
    assert asked == [2]


@pytest.mark.parametrize("law", ["chain", "next"])
def test_rolling_is_score_of_texts_of_any_length(law):
    lm = trained_lm("chained")
    texts = [TEXTS[3], "".join(TEXTS) * 3, ""]
    found = BytelmLM(lm, law=law).loglikelihood_rolling(requests("loglikelihood_rolling", *((text,) for text in texts)))
    assert found == pytest.approx([-score.nats for score in lm.score(texts, law=law)], abs=1e-3)


def test_generation_ends_before_the_first_stop_inside_a_step():
    lm = trained_lm("chained")
    contexts = [text[:8] for text in TEXTS]
    plain = [lm.generate([context], max_new_tokens=40).texts[0] for context in contexts]
    stops = [text[5:7] for text in plain]
    for batch_size in (1, 3):
        ours = BytelmLM(lm, batch_size=batch_size)
        asked = [(c, {"until": [stop, ""], "max_gen_toks": 10}) for c, stop in zip(contexts, stops, strict=True)]
        found = ours.generate_until(requests("generate_until", *asked))
        assert found == [text.split(stop)[0] for text, stop in zip(plain, stops, strict=True)]
        limits = [(c, {"until": [], "max_gen_toks": n}) for n, c in enumerate(contexts, 1)]
        found = ours.generate_until(requests("generate_until", *limits))
        expected = [lm.generate([c], max_new_tokens=4 * n).texts[0] for n, c in enumerate(contexts, 1)]
        assert found == expected  # a patch for each token of the limit


def test_sampling_depends_on_the_request_and_not_on_the_batch():
    lm = trained_lm("chained")
    keywords = {"until": ["\n"], "do_sample": True, "temperature": 2.5, "top_p": 0.99, "max_gen_toks": 6}
    asked = requests("generate_until", *[(TEXTS[0][:6], keywords)] * 4)
    alone, together = (BytelmLM(lm, batch_size=size).generate_until(asked) for size in (1, 4))
    assert alone == together
    assert len(set(alone)) > 1
    assert BytelmLM(lm, seed=7).generate_until(asked) != alone
    assert BytelmLM(lm, draft="none").generate_until(asked) == alone
    greedy = [(TEXTS[0][:6], {**keywords, "do_sample": False}), (TEXTS[0][:6], {"until": ["\n"], "max_gen_toks": 6})]
    first, second = BytelmLM(lm).generate_until(requests("generate_until", *greedy))
    assert first == second == lm.generate([TEXTS[0][:6]], max_new_tokens=24, stop=["\n"]).texts[0].split("\n")[0]


def test_long_contexts_lose_their_beginning_and_are_counted():
    lm = LanguageModel(tiny_model(context=64), Tokenizer(get_encoding("utf8")))
    ours = BytelmLM(lm, law="next")
    context = "abcdefgh" * 20
    cut, whole, short = loglikelihood(ours, (context, "hello"), (context[-56:], "hello"), ("ab", "hello"))
    assert cut == pytest.approx(whole, abs=1e-4)
    assert cut != pytest.approx(short, abs=1e-4)
    assert (ours.counts.truncated, ours.counts.requests) == (1, 3)
    made = ours.generate_until(requests("generate_until", (context, {"until": [], "max_gen_toks": 4})))
    assert made == lm.generate([context[-44:]], law="next", max_new_tokens=16).texts
    assert ours.get_model_info()["truncated_contexts"] == ours.counts.truncated == 2
    with pytest.raises(DecodingError, match="request 0: 62 symbols to score in a context of 64: found no room"):
        loglikelihood(ours, ("abc", "x" * 62))
    with pytest.raises(DecodingError, match="max_gen_toks: up to 64 symbols"):
        ours.generate_until(requests("generate_until", ("abc", {"until": [], "max_gen_toks": 16})))


def test_the_harness_keeps_answers(tmp_path, monkeypatch):
    lm = BytelmLM(trained_lm("chained"))
    pairs = requests("loglikelihood", (TEXT[:9], TEXT[9:12]), ("", TEXT[:4]))
    made = requests("generate_until", (TEXT[:9], {"until": ["。"], "max_gen_toks": 5}))
    rolled = requests("loglikelihood_rolling", (TEXTS[2],))
    cached = CachingLM(lm, str(tmp_path / "answers.db"))
    first = cached.loglikelihood(pairs), cached.generate_until(made), cached.loglikelihood_rolling(rolled)
    for name in ("score_ids", "generate", "score"):
        monkeypatch.setattr(LanguageModel, name, None)
    assert (cached.loglikelihood(pairs), cached.generate_until(made), cached.loglikelihood_rolling(rolled)) == first
    cached.dbdict.close()


def test_fingerprints_tell_models_and_laws_apart():
    lms = [BytelmLM(trained_lm("chained"), law=law) for law in ("chain", "next", "chain")]
    lms.append(BytelmLM(trained_lm("independent")))
    assert len({lm.fingerprint for lm in lms}) == 3
    assert lms[0].fingerprint == lms[2].fingerprint


def test_refused(tmp_path):
    lm = trained_lm("chained")
    for options, error, message in [
        ({"law": "product"}, LawError, "'product'"),
        ({"attention": "prefix"}, LawError, "'prefix'"),
        ({"windows": "harness"}, ConfigError, "windows: found 'harness' for a model of 4 bytes"),
        ({"windows": "none"}, ConfigError, "windows: found 'none', expected one of overlap, harness"),
        ({"batch_size": 0}, ConfigError, "batch_size: found 0"),
        ({"dtype": "int3"}, ConfigError, "dtype: found 'int3'"),
    ]:
        with pytest.raises(error, match=message):
            BytelmLM(lm, **options)
    with pytest.raises(CheckpointError, match="nowhere"):
        BytelmLM(tmp_path / "nowhere")
    ours = BytelmLM(lm, batch_size="auto")
    with pytest.raises(EncodingError, match="request 1, continuation: text index 1"):
        loglikelihood(ours, ("a", "b"), ("a", "b\ud800"))
    with pytest.raises(EncodingError, match=r"request 0, context: .*control string"):
        loglikelihood(ours, (f"a{lm.tokenizer.eos_token}", "b"))
    with pytest.raises(EncodingError, match="request 0: text index 0"):
        ours.loglikelihood_rolling(requests("loglikelihood_rolling", ("\ud800",)))
    for keywords, message in [
        ({"until": [3]}, "until: found 3"),
        ({"max_gen_toks": 0}, "max_gen_toks: found 0"),
        ({"num_beams": 4}, "option num_beams: unknown"),
    ]:
        with pytest.raises(DecodingError, match=message):
            ours.generate_until(requests("generate_until", ("a", {"until": [], **keywords})))
    with pytest.raises(ConfigError, match="no chat template"):
        ours.apply_chat_template([{"role": "user", "content": "a"}])
    with pytest.raises(ConfigError, match="no chat template"):
        ours.chat_template(True)
    assert ours.chat_template() == ""


def test_the_registry_knows_the_name(tmp_path):
    from lm_eval.api.registry import get_model

    from bytelm.hub import save_checkpoint

    model, encoding = trained_lm("chained").model, get_encoding("dense-ja")
    save_checkpoint(tmp_path / "model", model, encoding)
    made = get_model("bytelm").create_from_arg_string(f"path={tmp_path / 'model'},law=next,batch_size=2")
    assert isinstance(made, BytelmLM)
    assert (made.law, made.batch_size, made.max_length) == ("next", 2, 256)
    (found, _), (expected, _) = (
        loglikelihood(lm, ("朝", "の"))[0] for lm in (made, BytelmLM(trained_lm("chained"), law="next"))
    )
    assert math.isclose(found, expected, abs_tol=1e-5)

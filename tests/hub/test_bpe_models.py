"""Models of tokens as language models: generate, score, stops inside tokens, constraints, drafts."""

import json
import re

import numpy as np
import pytest
import torch
import transformers
from bpe_models import CONTEXT, TOKENS, copy_of, folder_of
from slow_families import gptj_logits
from support import tiny_model
from toy_checkpoints import read

import bytelm
from bytelm.encoding import get_encoding
from bytelm.errors import CheckpointError, DecodingError, EncodingError, LawError
from bytelm.hub import LanguageModel
from bytelm.tokenizer import Tokenizer

PROMPTS = ["The ferry leaves", "川の水", "a", "for i in range(7):\n\t"]
TEXTS = ["the ferryman won't wait", "水の音がする。🐟", "x", "print(i, 100)"]


@pytest.fixture(scope="module", params=["gptj", "gptjt", "gpt2", "llama", "btlm"])
def lm(request):
    return bytelm.load(folder_of(request.param))


@pytest.fixture(scope="module")
def gptj():
    return bytelm.load(folder_of("gptj"))


@pytest.fixture(scope="module")
def small():
    return bytelm.load(folder_of("gpt2"))


def rows_of(out):
    return [ids.tolist() for ids in out.ids]


def test_what_was_loaded(lm):
    assert lm.laws == ("next",)
    assert (lm.tokenizer.name, lm.tokenizer.vocab_size, lm.config.vocab_size) == ("bpe", TOKENS, TOKENS)
    assert lm.family in ("gptj", "gpt2", "llama", "btlm")
    assert lm.attention == lm.generate(["a"], max_new_tokens=1).attention == lm.config.prompt


@pytest.mark.parametrize("name", ["gptj", "gpt2", "llama"])
def test_ids_are_those_of_transformers(name):
    """An empty prompt is BOS; others have none before them."""
    lm, theirs = bytelm.load(folder_of(name)), transformers.AutoModelForCausalLM.from_pretrained(folder_of(name))
    if name == "gptj":
        with torch.no_grad():
            theirs.lm_head.bias[TOKENS:] = -1e9
    out = lm.generate(["", *PROMPTS], max_new_tokens=24, eos_token_id=TOKENS - 1, draft="none")
    for ids, prompt in zip(rows_of(out), ["", *PROMPTS], strict=True):
        given = lm.tokenizer.encode(prompt).tolist() or [lm.tokenizer.bos_id]
        options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": TOKENS - 1, "pad_token_id": TOKENS - 1}
        assert ids == theirs.generate(torch.tensor([given]), **options)[0, len(given) :].tolist()


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 5, "temperature": 1.3, "top_p": 0.95}])
def test_drafts_and_batches_change_nothing(lm, small, options):
    plain = lm.generate(PROMPTS, max_new_tokens=30, draft="none", **options)
    for draft in ("lookup", "auto", small, [small, "lookup"]) if lm.family == "gptj" else ([small, "lookup"],):
        found = lm.generate(PROMPTS, max_new_tokens=30, draft=draft, **options)
        assert rows_of(found) == rows_of(plain)
        assert found.texts == plain.texts
        for new, old in zip(found.nats, plain.nats, strict=True):
            np.testing.assert_allclose(new, old, atol=1e-5)
    if not options:
        assert [rows_of(lm.generate([p], max_new_tokens=30))[0] for p in PROMPTS] == rows_of(plain)


def test_a_draft_model_may_lack_ids(gptj, small, tmp_path):
    """GPT-2 drafts for GPT-J with its extra tokens, some of which stand in the prompt and are emitted."""
    folder = copy_of("gptj", tmp_path / "m")
    extra = {f"<|extratoken_{n}|>": TOKENS + n for n in range(12)}
    (folder / "added_tokens.json").write_text(json.dumps(extra))
    larger = bytelm.load(folder)
    assert (larger.tokenizer.vocab_size, larger.tokenizer.digest) == (TOKENS + 12, small.tokenizer.digest)
    prompts = ["<|extratoken_3|>川の水", "The ferry"]
    plain = larger.generate(prompts, max_new_tokens=30, draft="none", allowed_controls="all")
    assert max(map(max, rows_of(plain))) >= TOKENS
    found = larger.generate(prompts, max_new_tokens=30, draft=small, allowed_controls="all")
    assert rows_of(found) == rows_of(plain)
    assert found.stats.drafted > 0
    with pytest.raises(DecodingError, match="draft: found a model of the encoding bpe"):
        larger.generate(["a"], draft=bytelm.load(retrained("gpt2", tmp_path / "other")))


def retrained(name, folder):
    """The checkpoint with two merges in another order."""
    copy_of(name, folder)
    path = folder / "tokenizer.json"
    files = json.loads(path.read_text(encoding="utf-8"))
    merges = files["model"]["merges"]
    merges[-1], merges[-2] = merges[-2], merges[-1]
    path.write_text(json.dumps(files), encoding="utf-8")
    return folder


SAMPLED = {"do_sample": True, "seed": 2, "valid_text": True, "max_new_tokens": 24}


@pytest.mark.parametrize("draft", ["none", "lookup", "small"])
def test_a_stop_string_ends_the_text_exactly_there(gptj, small, draft):
    """Wherever the string begins, ends and crosses tokens: ids, text, stream, spans and log-probabilities."""
    plain = gptj.generate(["川の"], **SAMPLED, draft="none")
    text, ids = plain.texts[0], plain.ids[0].tolist()
    inside = 0
    for begin in range(0, len(text), 2):
        stop = text[begin : begin + (1, 4)[begin // 2 % 2]]
        end = text.index(stop) + len(stop)
        count = next(n for n in range(1, len(ids) + 1) if len(gptj.tokenizer.complete(ids[:n])[0]) >= end)
        inside += len(gptj.tokenizer.complete(ids[:count])[0]) > end
        pieces = []
        found = gptj.generate(
            ["川の"],
            **SAMPLED,
            draft=small if draft == "small" else draft,
            stop=[stop, "never in it"],
            streamer=lambda row, piece, pieces=pieces: pieces.append(piece),
        )
        assert found.texts[0] == "".join(pieces) == text[:end]
        assert rows_of(found)[0] == ids[:count]
        assert len(found.nats[0]) == count
        assert "".join(piece for piece, _, _ in found.spans(0)) == text[:end]
        assert found.finish == ["stop"]
    assert inside > 1


@pytest.mark.parametrize("draft", ["none", "lookup"])
def test_a_limit_of_characters_cuts_tokens(gptj, draft):
    text = gptj.generate(["川の"], **SAMPLED).texts[0]
    for most in range(1, len(text) + 1):
        found = gptj.generate(["川の"], **SAMPLED, draft=draft, max_new_chars=most)
        assert found.texts == [text[:most]]
        assert "".join(gptj.stream("川の", **SAMPLED, draft=draft, max_new_chars=most)) == text[:most]


def test_a_control_stops_and_its_string_does_not(gptj):
    literal = gptj.generate(["a"], pattern=re.escape("b<|endoftext|>c"), max_new_tokens=40, stop="<|endoftext|>")
    assert literal.texts == ["b<|endoftext|>c"]
    assert gptj.tokenizer.eos_id not in literal.ids[0][:-1]
    never = {"eos_token_id": TOKENS - 1, "sequence_bias": {gptj.tokenizer.eos_id: 1e4}}
    assert rows_of(gptj.generate(["a"], max_new_tokens=5, **never)) == [[gptj.tokenizer.eos_id] * 5]
    stopped = gptj.generate(["a"], max_new_tokens=5, **never, stop="<|endoftext|>")
    assert (rows_of(stopped), stopped.texts, stopped.finish) == ([[gptj.tokenizer.eos_id]], [""], ["stop"])


@pytest.mark.parametrize("draft", ["none", "lookup", "small"])
def test_constraints(gptj, small, draft):
    options = {"do_sample": True, "draft": small if draft == "small" else draft, "max_new_tokens": 30}
    for seed in range(5):
        out = gptj.generate(PROMPTS, valid_text=True, seed=seed, **options)
        for ids in out.ids:
            assert "\ufffd" not in gptj.tokenizer.decode(ids)
        out = gptj.generate(PROMPTS, pattern="(the|ferry|川の水){1,3}[0-9]{2}", seed=seed, **options)
        assert all(re.fullmatch("(the|ferry|川の水){1,3}[0-9]{2}", text) for text in out.texts)


def test_no_end_before_min_new_tokens(gptj):
    eager = {"sequence_bias": {gptj.tokenizer.eos_id: 1e4}, "max_new_tokens": 9}
    for least in (0, 1, 4, 9):
        ids = rows_of(gptj.generate(["a"], min_new_tokens=least, **eager))[0]
        assert len(ids) == min(least + 1, 9)
        assert gptj.tokenizer.eos_id not in ids[:least]


def test_bad_requests(gptj):
    for options, match in {
        (("stop", "a<|endoftext|>"),): "stop 0: found 'a<.endoftext.>', expected a control alone, or text without one",
        (("stop", b"a"),): "stop 0: found b'a', expected a string, ids or a callable",
        (("stop", (TOKENS,)),): f"stop 0: found .{TOKENS},., expected ids from 0 to {TOKENS - 1}",
        (("eos_token_id", -1),): "eos_token_id: found",
        (("stop", ""),): "stop 0: found an empty string",
        (("max_new_tokens", CONTEXT),): f"expected at most the model's context of {CONTEXT} tokens",
        (("draft", "heads"),): "this model and law have no heads to draft with",
    }.items():
        with pytest.raises(DecodingError, match=match):
            gptj.generate(["a small harbour"], **dict(options))
    with pytest.raises(LawError, match="law 'chain': this model has lm heads, expected one of next"):
        gptj.generate(["a"], law="chain")
    with pytest.raises(LawError, match="attention 'both': expected causal or prefix for this model"):
        gptj.generate(["a"], attention="both")
    with pytest.raises(EncodingError, match=r"stop 0: text index 1: found the lone surrogate"):
        gptj.generate(["a"], stop="a\ud800")
    with pytest.raises(LawError, match="attention 'prefix': expected causal for this model"):
        LanguageModel(tiny_model(), Tokenizer(get_encoding("utf8"))).generate(["a"], attention="prefix")


# Likelihoods


def by_formula(name, prompt, text, prefix):
    """Nats of the tokens of ``text`` after ``prompt``, one pass in float64."""
    lm = bytelm.load(folder_of(name))
    head, tail = lm.tokenizer.encode(prompt).tolist() or [lm.tokenizer.bos_id], lm.tokenizer.encode(text).tolist()
    weights, config = read(folder_of(name))
    logits = gptj_logits(weights, config, np.array(head + tail), prefix_len=len(head) if prefix else 0)[:, :TOKENS]
    log_p = torch.log_softmax(torch.from_numpy(logits), -1).numpy()
    return -log_p[np.arange(len(head) - 1, len(head) + len(tail) - 1), tail]


@pytest.mark.parametrize("name", ["gptj", "gptjt"])
@pytest.mark.parametrize("attention", [None, "causal", "prefix"])
def test_scores_are_those_of_the_formula(name, attention):
    lm = bytelm.load(folder_of(name))
    chosen = attention or {"gptj": "causal", "gptjt": "prefix"}[name]
    scores = lm.score(TEXTS, prompts=PROMPTS, attention=attention)
    assert scores.attention == chosen
    for score, prompt, text in zip(scores, PROMPTS, TEXTS, strict=True):
        assert score.nats == pytest.approx(by_formula(name, prompt, text, chosen == "prefix").sum(), abs=1e-3)
        assert (score.num_chars, score.num_utf8_bytes) == (len(text), len(text.encode()))
    rolling = lm.score(TEXTS, attention=attention)
    assert rolling.attention == "causal", "no prompt: there is nothing to see both ways"
    for score, text in zip(rolling, TEXTS, strict=True):
        assert score.nats == pytest.approx(by_formula(name, "", text, False).sum(), abs=1e-3)


def test_a_later_token_never_moves_an_earlier_score():
    """The trap of checkpoints whose mask is all ones: read in one pass, every position would see the future."""
    lm = bytelm.load(folder_of("gptjt"))
    text = "the ferryman won't wait"
    ids = lm.tokenizer.encode(text)
    heads = [lm.tokenizer.decode(ids[:n]) for n in range(1, len(ids))]
    for head in heads:
        assert lm.tokenizer.encode(head).tolist() == ids[: len(lm.tokenizer.encode(head))].tolist()
    scores = [lm.score([head], prompts=["The ferry leaves"])[0].nats for head in heads]
    for other in ("x", " 100", "水"):
        nats = [lm.score([head + other], prompts=["The ferry leaves"])[0].nats for head in heads]
        assert all(more > less - 1e-4 for more, less in zip(nats, scores, strict=True))
    parts = np.diff([0, *scores])
    exact = by_formula("gptjt", "The ferry leaves", text, True)[: len(parts)]
    np.testing.assert_allclose(parts, exact, atol=1e-3)
    moved = by_formula("gptjt", "The ferry leaves", text[:-4] + "100!", True)[: len(parts) - 4]
    np.testing.assert_allclose(moved, exact[: len(moved)], atol=1e-9)


def test_a_text_longer_than_the_context_is_scored_whole(lm):
    text = "The ferry leaves at nine. " * 60
    ids = lm.tokenizer.encode(text)
    assert len(ids) > 2 * CONTEXT
    whole = lm.score([text])[0]
    assert whole.num_chars == len(text)
    first = lm.score([lm.tokenizer.decode(ids[: CONTEXT - 1])])[0]
    assert whole.nats > first.nats > 0


# Models of the hub, from its local cache


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A cache that holds one model, as a download leaves it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    place = tmp_path / "models--someone--toy-gptj"
    commit = "0123456789abcdef0123456789abcdef01234567"
    copy_of("gptj", place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    (place / "refs" / "half").write_text(commit)


@pytest.mark.parametrize("revision", [None, "main", "half"])
def test_a_model_of_the_hub(gptj, hub_cache, revision, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = bytelm.load("someone/toy-gptj", revision=revision)
    assert rows_of(found.generate(PROMPTS, max_new_tokens=9)) == rows_of(gptj.generate(PROMPTS, max_new_tokens=9))


def test_what_the_hub_does_not_give(hub_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"^someone/other: no such folder, and the hub gives no model of this id"):
        bytelm.load("someone/other")
    with pytest.raises(CheckpointError, match="at revision 'later'"):
        bytelm.load("someone/toy-gptj", revision="later")
    with pytest.raises(CheckpointError, match="found a revision, 'main', expected none for a folder"):
        bytelm.load(folder_of("gptj"), revision="main")
    with pytest.raises(CheckpointError, match="no such folder"):
        bytelm.load(tmp_path / "a" / "b" / "c")

"""The HTTP interface as OpenAI's client sees it: answers are those of ``generate``, errors name what is wrong."""

import http.client
import json
import math
import re
import threading
import time
import urllib.request

import openai
import pytest
from running_server import NAME, raw, serving, until
from support import TEXTS

from bytelm.hub.session import TextSession
from bytelm.serving.answers import StopTrimmer

PROMPT = TEXTS[0][:7]
SAMPLED = {"temperature": 0.8, "top_p": 0.95, "seed": 11, "max_tokens": 60}


def generated(lm, prompts, **options):
    return lm.generate(prompts, do_sample=True, temperature=0.8, top_p=0.95, seed=11, max_new_tokens=60, **options)


def get(running, path):
    with urllib.request.urlopen(running.address + path) as response:
        return response.read().decode(), response.headers


def post(running, body, path="/v1/completions", **headers):
    """Status, body and headers of a request that no client would make."""
    connection = http.client.HTTPConnection(running.address.removeprefix("http://"), timeout=20)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, data, {"content-type": "application/json", **headers})
    response = connection.getresponse()
    found = response.status, json.loads(response.read() or b"null"), response.headers
    connection.close()
    return found


def test_an_answer_is_what_generate_gives(client, plain_lm):
    answer = client.completions.create(model=NAME, prompt=PROMPT, **SAMPLED)
    expected = generated(plain_lm, [PROMPT])
    assert answer.choices[0].text == expected.texts[0]
    assert answer.choices[0].finish_reason == expected.finish[0]
    assert answer.object == "text_completion"
    assert answer.usage.completion_tokens == len(expected.ids[0])
    assert answer.usage.prompt_tokens == len(plain_lm.tokenizer.encode(PROMPT))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("law", ["next", "chain"])
def test_prompts_sequences_and_laws(client, plain_lm, law):
    prompts = [PROMPT, "", TEXTS[1][:5]]
    answer = client.completions.create(model=NAME, prompt=prompts, n=2, extra_body={"law": law}, **SAMPLED)
    expected = generated(plain_lm, prompts, law=law, num_return_sequences=2)
    assert [choice.text for choice in answer.choices] == expected.texts
    assert [choice.index for choice in answer.choices] == list(range(6))


def test_options_of_sampling(client, plain_lm):
    options = {"temperature": 1.3, "seed": 2, "max_tokens": 40}
    for extra in ({"top_k": 5}, {"min_p": 0.2}, {"top_k": 9, "min_p": 0.05}):
        answer = client.completions.create(model=NAME, prompt=PROMPT, extra_body=extra, **options)
        expected = plain_lm.generate([PROMPT], do_sample=True, temperature=1.3, seed=2, max_new_tokens=40, **extra)
        assert answer.choices[0].text == expected.texts[0]
    counts = {"frequency_penalty": 0.5, "presence_penalty": -0.25}
    first = plain_lm.generate([PROMPT], max_new_tokens=1).ids[0][0]
    answer = client.completions.create(model=NAME, prompt=PROMPT, logit_bias={str(first): -100}, **counts, **options)
    theirs = {"sequence_bias": {int(first): -100}, "do_sample": True, "temperature": 1.3, "seed": 2, **counts}
    expected = plain_lm.generate([PROMPT], max_new_tokens=40, **theirs)
    assert answer.choices[0].text == expected.texts[0]
    assert first not in expected.ids[0]
    greedy = client.completions.create(model=NAME, prompt=PROMPT, temperature=0, max_tokens=40)
    assert greedy.choices[0].text == plain_lm.generate([PROMPT], max_new_tokens=40).texts[0]


def test_without_a_seed_each_answer_has_one_of_its_own(client, plain_lm):
    """Equal by chance: four answers each, and at this temperature no symbol of 256 is likelier than 1 in 128.

    Where all four end at once, by EOS, two requests are alike: 2**-56 at most.
    """
    options = {"temperature": 100, "max_tokens": 60, "n": 4}
    two = [client.completions.create(model=NAME, prompt=PROMPT, **options) for _ in range(2)]
    assert [choice.text for choice in two[0].choices] != [choice.text for choice in two[1].choices]
    ranges = []

    def flat(ids, scores):
        ranges.append(float(scores.max() - scores.min()))
        return scores

    plain_lm.generate(
        [PROMPT], do_sample=True, temperature=100, max_new_tokens=60, num_return_sequences=9, logits_processor=flat
    )
    assert math.exp(max(ranges) / 100) < 2, "as flat as the docstring says"


def test_a_stream_adds_up_to_the_answer(client, plain_lm):
    stream = client.completions.create(
        model=NAME, prompt=[PROMPT, ""], stream=True, stream_options={"include_usage": True}, **SAMPLED
    )
    pieces = list(stream)
    expected = generated(plain_lm, [PROMPT, ""])
    texts, reasons = ["", ""], [None, None]
    for piece in pieces[:-1]:
        assert piece.usage is None
        for choice in piece.choices:
            texts[choice.index] += choice.text
            assert reasons[choice.index] is None, "nothing follows the end"
            reasons[choice.index] = choice.finish_reason
    assert texts == expected.texts
    assert reasons == expected.finish
    assert pieces[-1].choices == []
    assert pieces[-1].usage.completion_tokens == sum(map(len, expected.ids))
    assert len({piece.id for piece in pieces}) == 1
    assert len(pieces) > 6


def test_streamed_characters_are_whole(client, plain_lm):
    """Where a limit cuts a character, its half is not sent, and what is sent never has U+FFFD for a half."""
    long = plain_lm.generate([PROMPT], max_new_tokens=30).ids[0]
    cut = next(n for n in range(5, 30) if not plain_lm.tokenizer.word_starts(long)[n])
    stream = client.completions.create(model=NAME, prompt=PROMPT, temperature=0, max_tokens=cut, stream=True)
    texts = [piece.choices[0].text for piece in stream]
    assert "".join(texts) == plain_lm.generate([PROMPT], max_new_tokens=cut).texts[0]
    assert "\ufffd" not in "".join(texts)


def test_stop_strings_are_left_out_wherever_they_fall(client, plain_lm):
    whole = plain_lm.generate([PROMPT], max_new_tokens=60).texts[0]
    for begin in range(3, 9):
        for size in (1, 2, 4):
            stop = whole[begin : begin + size]
            options = {"model": NAME, "prompt": PROMPT, "temperature": 0, "max_tokens": 60, "stop": ["never", stop]}
            expected = whole[: whole.index(stop)]
            answer = client.completions.create(**options)
            streamed = "".join(p.choices[0].text for p in client.completions.create(stream=True, **options))
            assert answer.choices[0].text == streamed == expected
            assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("size", [1, 2, 5])
def test_what_may_become_a_stop_is_held_back(size):
    text, stops = "abcabdabcabc-ab", ["abcabc", "never", "-abx"]
    trimmer = StopTrimmer(stops)
    pieces = [text[n : n + size] for n in range(0, 12, size)]
    sent = ""
    for n, piece in enumerate(pieces):
        piece = piece[: 12 - n * size]
        sent += trimmer.feed(piece, stopped=n == len(pieces) - 1, ended=n == len(pieces) - 1)
        assert text[:6].startswith(sent)
    assert sent == "abcabd"
    trimmer = StopTrimmer(stops)
    sent = [trimmer.feed(text[12:], stopped=False, ended=False), trimmer.feed("", stopped=False, ended=True)]
    assert sent == ["", "-ab"], "what was held back is sent when the row ends otherwise"


def test_log_probabilities_are_of_symbols(client, plain_lm):
    expected = generated(plain_lm, [PROMPT])
    answer = client.completions.create(model=NAME, prompt=PROMPT, logprobs=0, **SAMPLED)
    found = answer.choices[0].logprobs
    assert found.ids == expected.ids[0].tolist()
    assert found.token_logprobs == pytest.approx([-n for n in expected.nats[0]], abs=1e-4)
    assert "".join(found.tokens).startswith(expected.texts[0])
    assert found.text_offset == [len("".join(found.tokens[:n])) for n in range(len(found.tokens))]
    stream = client.completions.create(model=NAME, prompt=PROMPT, logprobs=0, stream=True, **SAMPLED)
    streamed = [value for p in stream for value in p.choices[0].logprobs.token_logprobs]
    assert streamed == pytest.approx(found.token_logprobs, abs=1e-4)


def test_echo(client):
    plain = client.completions.create(model=NAME, prompt=PROMPT, **SAMPLED).choices[0].text
    echoed = client.completions.create(model=NAME, prompt=PROMPT, echo=True, **SAMPLED).choices[0].text
    pieces = client.completions.create(model=NAME, prompt=PROMPT, echo=True, stream=True, **SAMPLED)
    assert echoed == "".join(p.choices[0].text for p in pieces) == PROMPT + plain


def test_models(client, running):
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError, match="expected 'toy'"):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="expected 'toy', which is what this server serves"):
        client.completions.create(model="other", prompt="")
    with pytest.raises(openai.NotFoundError, match="expected POST /v1/completions"):
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "a"}])


REFUSED = {
    "prompt": [None, 7, [], ["a", 7], [1, 2], "x" * 70_000, "\ud800"],
    "max_tokens": [0, -1, 1.5, True, "9", 10_000],
    "temperature": [-1, "hot", True],
    "top_p": [-0.1, 3],
    "top_k": [0, 1.5],
    "min_p": [2],
    "seed": [-1, 1 << 64, 0.5, "x"],
    "n": [0, 33, None, "1"],
    "best_of": [3],
    "stop": ["", ["a", ""], ["a"] * 17, [7], "x" * 300],
    "logprobs": [1, 5, True, "0"],
    "law": ["product", "other", 7],
    "stream": ["yes", 1],
    "stream_options": [{"include_usage": True}, 3],
    "echo": [1],
    "frequency_penalty": [2.5, "1", True],
    "presence_penalty": [-3, []],
    "logit_bias": [{"5": 101}, {"5": None}, {"5": "1"}, {"a": 1}, {"-1": 1}, {"\u0663": 1}, {"256": 1}, [1], []],
    "suffix": ["x"],
    "messages": [[]],
    "tools": [None],
}
ACCEPTED = {
    "frequency_penalty": 0.0,
    "presence_penalty": None,
    "logit_bias": {},
    "suffix": None,
    "user": "someone",
    "best_of": 1,
    "n": None,
    "seed": None,
    "stop": None,
    "logprobs": None,
}


@pytest.mark.parametrize("field", REFUSED)
def test_a_wrong_field_is_named(running, field):
    for value in REFUSED[field]:
        if field == "n" and value is None:
            continue
        status, body, _ = post(running, {"model": NAME, "prompt": "a", "max_tokens": 2, field: value})
        assert status == 400, (field, value)
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["type"] == "invalid_request_error"
        named = {"prompt": ("prompt", None), "max_tokens": ("max_tokens", None), "messages": ("messages",)}
        assert body["error"]["param"] in named.get(field, (field,)), body
    running.settle()


def test_what_asks_for_nothing_is_accepted(running):
    status, body, _ = post(running, {"model": NAME, "prompt": "a", "max_tokens": 2, **ACCEPTED})
    assert status == 200, body


def test_bodies_that_are_none(running):
    for data, status in ((b"", 400), (b"[]", 400), (b"{", 400), (b'{"a":' * 50_000, 400), (b" " * 500_000, 413)):
        found, body, _ = post(running, data)
        assert (found, body["error"]["message"][:5]) == (status, "body:")
    assert post(running, {"prompt": "a"}, **{"content-type": "text/plain"})[0] == 415
    assert post(running, {}, "/v1/embeddings")[:2][0] == 404
    assert post(running, {}, "/health")[1]["error"]["message"] == "POST /health: Method Not Allowed"


def test_a_request_beside_twenty_others_gives_the_same(lm, plain_lm):
    """Prompts, limits, seeds, options and laws of the others differ, and so do the moments at which they come."""
    with serving(lm, max_batch=8) as running, running.client() as client:
        alone = client.completions.create(model=NAME, prompt=PROMPT, **SAMPLED).choices[0].text
        found = {}

        def ask(n):
            options = {"temperature": 0.5 + n / 10, "seed": n, "max_tokens": 10 + 3 * n}
            prompt = TEXTS[n % 4][: n + 1]
            text = client.completions.create(model=NAME, prompt=prompt, **options).choices[0].text
            found[n] = text, prompt, options

        others = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
        for thread in others:
            thread.start()
        texts = [client.completions.create(model=NAME, prompt=PROMPT, **SAMPLED).choices[0].text for _ in range(3)]
        for thread in others:
            thread.join()
    assert texts == [alone] * 3
    assert alone == generated(plain_lm, [PROMPT]).texts[0]
    for text, prompt, options in found.values():
        options = {"max_new_tokens": options.pop("max_tokens"), **options}
        assert text == plain_lm.generate([prompt], do_sample=True, **options).texts[0]


@pytest.fixture
def slow_forwards(monkeypatch):
    """A forward takes 20 ms at least, so that there is time to ask for something while a request runs."""
    plain = TextSession.round
    monkeypatch.setattr(TextSession, "round", lambda self: time.sleep(0.02) or plain(self))


def test_a_full_queue(lm, slow_forwards):
    with serving(lm, max_batch=1, max_queue=1) as running, running.client() as client:
        streams = [client.completions.create(model=NAME, prompt=PROMPT, max_tokens=200, temperature=0, stream=True)]
        waiting = raw(running.address, {"prompt": "a"})
        until(lambda: running.engine.num_queued)
        with pytest.raises(openai.RateLimitError, match="1 requests are waiting") as refused:
            client.completions.create(model=NAME, prompt=PROMPT)
        assert refused.value.response.headers["retry-after"] == "1"
        assert refused.value.type == "rate_limit_error"
        waiting.close()
        until(lambda: not running.engine.num_queued)
        streams[0].close()
        running.settle()


def test_time_is_limited(lm, slow_forwards):
    slow = {"model": NAME, "prompt": PROMPT, "max_tokens": 240, "temperature": 0}
    with serving(lm, timeout_s=0.2) as running, running.client() as client:
        with pytest.raises(openai.InternalServerError, match="longer than the server's limit") as late:
            client.completions.create(**slow, n=20)
        assert late.value.status_code == 504
        with pytest.raises(openai.APIError, match="longer than the server's limit"):
            list(client.completions.create(**slow, n=20, stream=True))
        running.settle()
        assert '{status="504"} 2' in get(running, "/metrics")[0]


def test_health_and_metrics(lm):
    with serving(lm) as running, running.client() as client:
        assert json.loads(get(running, "/health")[0]) == {"status": "ok", "model": NAME, "queued": 0, "rows": 0}
        client.completions.create(model=NAME, prompt=PROMPT, max_tokens=20, temperature=0)
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model=NAME, prompt=PROMPT, max_tokens=10_000)
        running.settle()
        text, headers = get(running, "/metrics")
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        values = dict(line.rsplit(" ", 1) for line in lines)
        assert values['bytelm_requests_total{status="200"}'] == values['bytelm_requests_total{status="400"}'] == "1"
        assert values["bytelm_symbols_total"] == "20"
        assert values["bytelm_batch_rows"] == values["bytelm_cache_bytes"] == "0"
        assert values['bytelm_request_seconds_bucket{le="+Inf"}'] == "2"
        assert 2 <= int(values["bytelm_forwards_total"]) <= 20
        typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        assert {re.sub("_(bucket|sum|count)$", "", re.split("[{ ]", line)[0]) for line in lines} == typed


def test_what_fails_inside_is_told_and_the_next_request_is_served(lm, monkeypatch, caplog):
    with serving(lm) as running, running.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr(TextSession, "round", lambda self: 1 / 0)
            with pytest.raises(openai.InternalServerError, match="internal error"):
                client.completions.create(model=NAME, prompt=PROMPT, max_tokens=20)
        assert "ZeroDivisionError" in caplog.text
        running.settle()
        assert client.completions.create(model=NAME, prompt=PROMPT, max_tokens=20).usage.completion_tokens > 0


def test_when_the_server_ends_streams_are_told(lm, slow_forwards):
    with serving(lm, grace_s=0.0) as running, running.client() as client:
        stream = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=240, temperature=0, n=20, stream=True)
        next(stream)
        running.server.should_exit = True
        with pytest.raises(openai.APIError, match="shutting down"):
            list(stream)

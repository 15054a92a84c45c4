"""Many clients at once, slow ones and such that go away among them: nobody waits for them, and nothing is left."""

import asyncio
import concurrent.futures
import gc
import json
import os
import threading
import urllib.request

import openai
import pytest
from running_server import NAME, raw, serving, until
from support import TEXTS

from bytelm.serving import Ticket

OPTIONS = {"temperature": 0.9, "max_tokens": 48}


def request_for(n, /, **extra):
    return {"model": NAME, "prompt": TEXTS[n % 4][: 1 + n % 9], "seed": n, "stream": True, **OPTIONS, **extra}


def expected(lm, n):
    body = request_for(n)
    options = {"do_sample": True, "temperature": 0.9, "max_new_tokens": 48, "seed": n}
    return lm.generate([body["prompt"]], **options).texts[0]


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def texts_of(received):
    """The text of the events of a stream, chunks of HTTP taken apart."""
    body, data = received.split(b"\r\n\r\n", 1)[1], b""
    while body:
        size, body = body.split(b"\r\n", 1)
        data, body = data + body[: int(size, 16)], body[int(size, 16) + 2 :]
    events = [event.removeprefix("data: ") for event in data.decode().split("\n\n") if event]
    assert events.pop() == "[DONE]"
    return "".join(choice["text"] for event in events for choice in json.loads(event)["choices"])


async def usual(client, n):
    """Reads as it comes; the text."""
    stream = await client.completions.create(**request_for(n))
    return "".join([piece.choices[0].text async for piece in stream])


def slow(address, n, gate):
    """Reads a little, and the rest when the gate opens; the text."""
    with raw(address, request_for(n), buffer=2048) as client:
        received = client.recv(700)
        assert gate.wait(100), "those that read as it comes waited for those that do not"
        while piece := client.recv(700):
            received += piece
    return texts_of(received)


def leaving(address, n):
    """Goes at once, after the first bytes, or in the middle of its own request."""
    with raw(address, request_for(n, max_tokens=200, n=2)) as client:
        if n % 3:
            client.recv(300 * (n % 3))


async def crowd(running, number):
    """Each third client of a kind; the gate of the slow ones opens when the usual ones have their answers."""
    loop, options = asyncio.get_running_loop(), {"api_key": "-", "max_retries": 0, "timeout": 120}
    gate = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        async with openai.AsyncOpenAI(base_url=f"{running.address}/v1", **options) as client:
            kinds = (
                lambda n: usual(client, n),
                lambda n: loop.run_in_executor(pool, slow, running.address, n, gate),
                lambda n: loop.run_in_executor(pool, leaving, running.address, n),
            )
            clients = [asyncio.ensure_future(kinds[n % 3](n)) for n in range(number)]
            await asyncio.gather(*clients[::3])
            gate.set()
            return await asyncio.gather(*clients)


def check_crowd(lm, plain_lm, number, **limits):
    with serving(lm, **limits) as running:
        urllib.request.urlopen(running.address + "/health").close()
        asyncio.run(crowd(running, 3))
        running.settle()
        threads, descriptors = threading.active_count(), open_descriptors()
        answers = asyncio.run(crowd(running, number))
        running.settle()
        for n, answer in enumerate(answers):
            if n % 3 != 2:
                assert answer == expected(plain_lm, n), n
        session = running.engine.sessions[lm.law]
        assert (session.num_live, session.cache_bytes, session._target.cache.num_bytes) == (0, 0, 0)
        assert not running.engine._left
        assert not running.engine._running
        gc.collect()
        assert not [one for one in gc.get_objects() if type(one) is Ticket]
        until(lambda: not running.server.server_state.connections)
        assert threading.active_count() <= threads
        assert open_descriptors() <= descriptors
        with urllib.request.urlopen(running.address + "/metrics") as response:
            assert 'bytelm_requests_total{status="499"} ' in response.read().decode()


def test_twenty_streams(lm, plain_lm):
    check_crowd(lm, plain_lm, 20, max_batch=16)


@pytest.mark.slow
@pytest.mark.parametrize("max_batch", [8, 100])
def test_a_hundred_streams(lm, plain_lm, max_batch):
    for _ in range(3):
        check_crowd(lm, plain_lm, 100, max_batch=max_batch)


def test_a_client_that_reads_nothing_is_cut_off(lm):
    """Its answer does not fit the buffers in between; its rows end all the same, and then its time is over."""
    with serving(lm, timeout_s=2.0, socket_timeout_s=0.5, send_buffer=4096) as running, running.client() as client:
        body = request_for(0, max_tokens=240, n=20, logprobs=0)
        with raw(running.address, body, buffer=2048):
            until(lambda: running.engine.num_rows)
            answer = client.completions.create(model=NAME, prompt="", max_tokens=8)
            assert answer.usage.completion_tokens > 0
            client.close()
            until(lambda: not running.engine.num_rows)
            running.settle()
            until(lambda: not running.server.server_state.connections)
        assert running.server.metrics.requests[200] == 1, "that of the silent client was not sent in time"


def test_rows_of_a_client_that_went_end_at_once(lm):
    """Without streaming, too: between two forwards."""
    with serving(lm) as running:
        for stream in (False, True):
            client = raw(running.address, request_for(0, max_tokens=240, n=20, stream=stream))
            until(lambda: running.engine.num_rows)
            client.close()
            began = running.engine.sessions[lm.law].totals.forwards
            running.settle()
            assert running.engine.sessions[lm.law].totals.forwards - began < 30 < 240 / 4

"""A server in a thread of the test's process, on a free port."""

import contextlib
import dataclasses
import json
import socket
import threading
import time

import openai

from bytelm.serving import Engine, Limits
from bytelm.serving.server import Server, address_of, open_socket

NAME = "toy"


@dataclasses.dataclass
class Running:
    """A server and how to reach it."""

    engine: Engine
    server: Server
    address: str

    def client(self, **options):
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key="none", max_retries=0, timeout=30, **options)

    def settle(self):
        """Wait until nothing runs or waits, and every connection's task has ended."""
        engine = self.engine
        until(lambda: not (engine.num_rows or engine.num_queued or engine._running or engine._left))
        until(lambda: not self.server.server_state.tasks)


def until(condition, seconds=20.0):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def raw(address, body, *, buffer=None):
    """A connection on which a request was sent; ``buffer``: bytes that the system takes before they are read."""
    host, port = address.removeprefix("http://").split(":")
    client = socket.socket()
    if buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.connect((host, int(port)))
    data = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    client.sendall(head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return client


@contextlib.contextmanager
def serving(lm, *, law=None, draft="auto", socket_timeout_s=30.0, send_buffer=None, **limits):
    """Serve a language model; on leaving, the server has ended and its threads with it."""
    listening = open_socket("127.0.0.1", 0, socket_timeout_s)
    if send_buffer is not None:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    engine = Engine(lm, law=law, draft=draft, limits=Limits(**{"grace_s": 0.2, **limits}))
    ready = threading.Event()
    server = Server(engine, NAME, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    address = address_of(listening)
    thread.start()
    try:
        assert ready.wait(20)
        yield Running(engine, server, address)
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()
        assert not engine.is_alive

"""The process: a socket, signals, and the way to the end."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from bytelm.errors import ConfigError
from bytelm.serving.app import make_app
from bytelm.serving.engine import Engine
from bytelm.serving.metrics import Metrics

_BACKLOG = 1024
_MORE_CONNECTIONS = 100
"""Connections beyond those of requests that run or wait: health, metrics, clients that read the last of an answer."""


def open_socket(host: str, port: int, timeout_s: float) -> socket.socket:
    """A socket that listens; port 0 is any that is free.

    A peer that takes nothing that it was sent for ``timeout_s`` is cut off by the system (Linux).

    Raises:
        ConfigError: the host is unknown, or the port is taken or not allowed.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"--port: found {port}, expected a number from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host: found {host!r}, expected an address of this machine ({error})") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * timeout_s))
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(f"--host, --port: found {host}:{port}, which cannot be listened at: {error}") from None
    return listening


def address_of(listening: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Serves an engine until SIGTERM or SIGINT, which leave running requests the engine's ``grace_s`` to finish.

    Args:
        engine: started and stopped by the server.
        model: the name that clients call it by.
        on_ready: called when connections are accepted.
    Attributes:
        signal: that ended it, if one did.
        metrics: of the requests.
    """

    def __init__(self, engine: Engine, model: str, on_ready: Callable[[], None] = lambda: None) -> None:
        limits, self.metrics = engine.limits, Metrics()
        super().__init__(
            uvicorn.Config(
                make_app(engine, model, self.metrics),
                log_config=None,
                access_log=False,
                lifespan="on",
                ws="none",
                server_header=False,
                limit_concurrency=limits.max_batch + limits.max_queue + _MORE_CONNECTIONS,
                timeout_graceful_shutdown=int(limits.grace_s) + 3,
            )
        )
        self.engine, self._on_ready = engine, on_ready
        self.signal: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new requests, give running ones their time, fail the rest."""
        self.engine.close()
        ending = asyncio.create_task(self._end())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end(self) -> None:
        await asyncio.sleep(self.engine.limits.grace_s)
        await asyncio.to_thread(self.engine.stop)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while serving; unlike uvicorn's, a signal is not raised again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; at a second one, at once."""
        self.force_exit = self.signal is not None
        self.signal, self.should_exit = sig, True

"""The running batch: one thread that computes, tickets that event loops wait at."""

import asyncio
import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding.generation import Finish
from bytelm.errors import BytelmError
from bytelm.hub import LanguageModel
from bytelm.hub.session import TextRequest, TextSession, TextStep
from bytelm.serving.errors import RequestError
from bytelm.serving.limits import Limits
from bytelm.serving.requests import CompletionRequest

_PREFILL_SYMBOLS = 8_192
"""Symbols of prompts after which no further request joins in the same round, so that running rows wait little."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class RowNews:
    """What a row gave since its client last asked.

    Attributes:
        text: whole characters.
        symbols: behind it, controls included.
        nats: -log p of each symbol.
        finish: why the row ended, if it has.
    """

    text: str = ""
    symbols: list[NDArray[Any]] = dataclasses.field(default_factory=list)
    nats: list[NDArray[np.float64]] = dataclasses.field(default_factory=list)
    finish: Finish | None = None

    def add(self, step: TextStep) -> None:
        """Append what one forward gave."""
        self.text += step.text
        self.symbols.append(step.symbols.copy())
        self.nats.append(step.nats.copy())
        self.finish = step.finish


class Ticket:
    """A request on its way. What its client has not taken yet is kept merged: never more than its whole answer.

    Belongs to the event loop that submitted it.

    Attributes:
        request: that was submitted.
        num_prompt_symbols: of all prompts; 0 before it was admitted.
        submitted, admitted: times, of ``time.monotonic``; ``admitted`` is NaN before.
        ended: whether its client is done with it.
    """

    def __init__(self, request: CompletionRequest) -> None:
        self.request, self.num_prompt_symbols = request, 0
        self.submitted, self.admitted = time.monotonic(), float("nan")
        self.ended = False
        self.prepared: TextRequest | None = None
        self.session: TextSession | None = None
        self._loop = asyncio.get_running_loop()
        self._news: dict[int, RowNews] = {}
        self._num_live = request.num_rows
        self._error: RequestError | None = None
        self._wake = asyncio.Event()

    async def ready(self) -> None:
        """Wait until there is something to take.

        Raises:
            RequestError: the request has failed.
        """
        await self._wake.wait()
        if self._error is not None and not self._news:
            raise self._error

    async def take(self) -> dict[int, RowNews]:
        """What came since the last call, by row; waits for something, and is empty when all rows have ended.

        Raises:
            RequestError: the request has failed; what it gave before was taken.
        """
        if not self._news and self._num_live == 0 and self._error is None:
            return {}
        await self.ready()
        news, self._news = self._news, {}
        if self._error is None:
            self._wake.clear()
        return news

    def put(self, steps: Iterable[TextStep]) -> None:
        """Called in the event loop: add what a forward gave."""
        for step in steps:
            self._news.setdefault(step.row, RowNews()).add(step)
            self._num_live -= step.finish is not None
        self._wake.set()

    def fail(self, error: RequestError) -> None:
        """Called in the event loop: end the request."""
        self._error = self._error or error
        self._wake.set()

    def tell(self, callback: Any, *arguments: Any) -> None:
        """From any thread: call back in the event loop, unless that has ended."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            _log.debug("an event loop ended before its request")


class Engine:
    """Runs requests in a thread of its own. Those of one law are rows of one batch, which they join and leave.

    Requests are admitted in the order of their arrival, as soon as the batch has room for all their rows. Laws take
    turns, a forward each.

    Args:
        lm: the model; used by nobody else meanwhile.
        law: of requests that name none; the model's default for None.
        draft: by name, for all requests; see :class:`bytelm.hub.GenerationOptions`.
        limits: how much is taken on.
    Raises:
        LawError: the model does not define ``law``.
        DecodingError: a draft that model and law do not have.
    """

    def __init__(
        self, lm: LanguageModel, *, law: str | None = None, draft: Any = "auto", limits: Limits | None = None
    ) -> None:
        self.lm, self.draft, self.limits = lm, draft, limits or Limits()
        self.law = law if law is not None else lm.law
        self._sessions: dict[str, TextSession] = {self.law: lm.session(law=self.law, draft=draft)}
        self._running: dict[TextRequest, Ticket] = {}
        self._queue: collections.deque[Ticket] = collections.deque()
        self._left: set[Ticket] = set()
        self._wake = threading.Condition()
        self._closing = self._stopping = False
        self._thread = threading.Thread(target=self._work, name="bytelm-serving", daemon=True)

    # Called by event loops --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, request: CompletionRequest) -> Ticket:
        """Queue a request.

        Raises:
            RequestError: 429, the queue is full; 503, the server ends; 400, no such law.
        """
        if request.law is not None and request.law not in self.lm.laws:
            message = f"law: found {request.law!r}, expected one of {', '.join(self.lm.laws)}"
            raise RequestError(400, message, param="law")
        ticket = Ticket(request)
        with self._wake:
            if self._closing or not self.is_alive:
                raise _ending()
            if len(self._queue) >= self.limits.max_queue:
                message = f"{len(self._queue)} requests are waiting, which is the limit; try again later"
                raise RequestError(429, message, kind="rate_limit_error", code="queue_full", retry_after_s=1)
            self._queue.append(ticket)
            self._wake.notify()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """The client has gone, or has its answer: the ticket's rows end at once, before the next forward."""
        with self._wake:
            if ticket in self._queue:
                self._queue.remove(ticket)
            elif ticket.prepared is None or ticket.prepared.num_live:
                self._left.add(ticket)
                self._wake.notify()

    def close(self) -> None:
        """Take no new requests."""
        with self._wake:
            self._closing = True

    def stop(self) -> None:
        """Fail what is queued or runs, and wait for the thread to end."""
        with self._wake:
            self._closing = self._stopping = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    @property
    def is_closing(self) -> bool:
        """Whether new requests are refused."""
        return self._closing

    @property
    def num_queued(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def num_rows(self) -> int:
        """Rows that run."""
        return sum(session.num_live for session in self.sessions.values())

    @property
    def sessions(self) -> Mapping[str, TextSession]:
        """The batch of each law that was asked for."""
        return dict(self._sessions)

    # The thread -------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Wait for something to do; rows leave, rows join, and each batch goes on by a forward. False at the end."""
        with self._wake:
            while not (self._queue or self._left or self._running or self._stopping):
                self._wake.wait()
            left, self._left = self._left, set()
            if self._stopping:
                self._fail([*self._queue, *self._running.values()], _ending())
                self._queue.clear()
                self._running.clear()
                return False
        self._retire(left)
        arrivals = self._next_arrivals()
        try:
            self._admit(arrivals)
            for session in self._sessions.values():
                if session.num_live:
                    self._deliver(session.round())
                if not session.num_live:
                    session.release()
        except Exception:  # noqa: BLE001 - whatever it is, its requests fail and others are served
            _log.exception("requests failed")
            self._fail([*arrivals, *self._running.values()], RequestError(500, "internal error", kind="api_error"))
            self._running.clear()
            self._sessions = {law: self.lm.session(law=law, draft=self.draft) for law in self._sessions}
        return True

    def _next_arrivals(self) -> list[Ticket]:
        """The first requests of the queue that the batch has room for."""
        room, symbols = self.limits.max_batch - self.num_rows, 0
        found: list[Ticket] = []
        with self._wake:
            while self._queue and self._queue[0].request.num_rows <= room and symbols < _PREFILL_SYMBOLS:
                ticket = self._queue.popleft()
                room -= ticket.request.num_rows
                symbols += sum(map(len, ticket.request.prompts))
                found.append(ticket)
        return found

    def _retire(self, left: Iterable[Ticket]) -> None:
        """End the rows of clients that have gone."""
        for ticket in left:
            if ticket.prepared is not None and self._running.pop(ticket.prepared, None) is not None:
                assert ticket.session is not None
                ticket.session.retire([ticket.prepared])

    def _admit(self, arrivals: Sequence[Ticket]) -> None:
        joining: dict[TextSession, list[Ticket]] = {}
        for ticket in arrivals:
            law = ticket.request.law or self.law
            try:
                if law not in self._sessions:
                    self._sessions[law] = self.lm.session(law=law, draft=self.draft)
                session = self._sessions[law]
                ticket.prepared = session.prepare(ticket.request.prompts, **ticket.request.options)
            except BytelmError as error:
                param = str(error).split(":")[0]
                self._fail([ticket], RequestError(400, str(error), param=param if param.isidentifier() else None))
                continue
            ticket.session = session
            ticket.num_prompt_symbols, ticket.admitted = ticket.prepared.num_prompt_symbols, time.monotonic()
            joining.setdefault(session, []).append(ticket)
        for session, tickets in joining.items():
            requests = {ticket.prepared: ticket for ticket in tickets if ticket.prepared is not None}
            self._running.update(requests)
            self._deliver(session.admit(list(requests)))

    def _deliver(self, steps: Sequence[TextStep]) -> None:
        """Hand over what a forward gave, a call for each request."""
        by_request: dict[TextRequest, list[TextStep]] = {}
        for step in steps:
            by_request.setdefault(step.request, []).append(step)
        for request, own in by_request.items():
            ticket = self._running[request]
            ticket.tell(ticket.put, own)
            if not request.num_live:
                del self._running[request]

    def _fail(self, tickets: Iterable[Ticket], error: RequestError) -> None:
        for ticket in tickets:
            ticket.tell(ticket.fail, error)


def _ending() -> RequestError:
    return RequestError(503, "the server is shutting down", kind="service_unavailable", code="shutting_down")

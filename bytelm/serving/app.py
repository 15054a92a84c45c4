"""The HTTP interface: OpenAI's completions and models, health and metrics."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bytelm.serving.answers import Answers, merge_choices, sse
from bytelm.serving.engine import Engine, Ticket
from bytelm.serving.errors import RequestError
from bytelm.serving.metrics import CONTENT_TYPE, Metrics
from bytelm.serving.requests import CompletionRequest, parse_completion

_T = TypeVar("_T")

_JSON_ROOM = 65_536
_MOST_BYTES_OF_ESCAPE = 6
"""A JSON string needs at most so many bytes for one byte of UTF-8: ``\\u0001``."""

_LAST_WORD_S = 1.0
"""Seconds to tell a client that its time is over."""

_GONE = 499
"""Status in the metrics of a request whose client went before its end; nobody receives it."""


def make_app(engine: Engine, model: str, metrics: Metrics) -> Starlette:
    """Serves ``engine`` under the name ``model``; starts the engine, and stops it at its end."""
    server = _Routes(engine, model, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await asyncio.to_thread(engine.stop)

    return Starlette(
        routes=[
            Route("/health", server.health, methods=["GET"]),
            Route("/metrics", server.metrics_text, methods=["GET"]),
            Route("/v1/models", server.models, methods=["GET"]),
            Route("/v1/models/{name:path}", server.one_model, methods=["GET"]),
            Route("/v1/completions", server.completions, methods=["POST"]),
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
        ],
        exception_handlers={RequestError: _refuse, HTTPException: _refuse_http, Exception: _fail},
        lifespan=lifespan,
    )


class _Routes:
    """The handlers, with what they share."""

    def __init__(self, engine: Engine, model: str, metrics: Metrics) -> None:
        self.engine, self.model, self.metrics = engine, model, metrics
        self._began = int(time.time())

    async def health(self, request: Request) -> Response:
        """200 while requests are served."""
        engine = self.engine
        well = engine.is_alive and not engine.is_closing
        status = "ok" if well else "closing" if engine.is_alive else "dead"
        body = {"status": status, "model": self.model, "queued": engine.num_queued, "rows": engine.num_rows}
        return JSONResponse(body, 200 if well else 503)

    async def metrics_text(self, request: Request) -> Response:
        """For Prometheus."""
        return PlainTextResponse(self.metrics.exposition(self.engine), media_type=CONTENT_TYPE)

    async def models(self, request: Request) -> Response:
        """The one model."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def one_model(self, request: Request) -> Response:
        """The one model, by its name."""
        if request.path_params["name"] != self.model:
            message = f"model: found {request.path_params['name']!r}, expected {self.model!r}"
            raise RequestError(404, message, param="model", code="model_not_found")
        return JSONResponse(self._model())

    async def chat(self, request: Request) -> Response:
        """Not here."""
        message = "this model continues text and was trained on no dialogues, expected POST /v1/completions"
        raise RequestError(404, message, code="chat_not_supported")

    async def completions(self, request: Request) -> Response:
        """Continue prompts."""
        deadline = asyncio.get_running_loop().time() + self.engine.limits.timeout_s
        ticket: Ticket | None = None
        try:
            async with _until(deadline):
                body = await self._body(request)
                wanted = parse_completion(body, self.model, self.engine.limits, self.engine.lm.config.vocab_size)
                ticket = self.engine.submit(wanted)
                answers = Answers(ticket, self.model, self.engine.lm.tokenizer)
                if wanted.stream:
                    await _while_connected(request.receive, ticket.ready())
                    self.metrics.first(ticket)
                    return _EventStream(self, ticket, answers, deadline)
                whole = await _while_connected(request.receive, self._whole(ticket, answers))
            self._end(200, ticket)
            return JSONResponse(whole)
        except BaseException as error:
            self._end(_status(error), ticket)
            if isinstance(error, _ClientGone):
                return Response(status_code=_GONE)
            raise

    async def _whole(self, ticket: Ticket, answers: Answers) -> dict[str, Any]:
        pieces: list[dict[str, Any]] = []
        while news := await ticket.take():
            if not pieces:
                self.metrics.first(ticket)
            pieces += answers.read(news)
        return answers.body(merge_choices(pieces), usage=answers.usage)

    async def events(self, ticket: Ticket, answers: Answers, wanted: CompletionRequest) -> AsyncIterator[bytes]:
        """The events of a stream; an error that comes too late for a status is the last of them."""
        empty = {"usage": None} if wanted.include_usage else {}
        try:
            while news := await ticket.take():
                if choices := answers.read(news):
                    yield sse(answers.body(choices, **empty))
        except RequestError as error:
            yield sse(error.to_json())
            self._end(error.status, ticket)
            return
        if wanted.include_usage:
            yield sse(answers.body([], usage=answers.usage))
        yield sse("[DONE]")

    def _end(self, status: int, ticket: Ticket | None) -> None:
        """Count a request, once, and let its rows go."""
        if ticket is None or not ticket.ended:
            self.metrics.end(status, ticket)
        if ticket is not None:
            ticket.ended = True
            self.engine.leave(ticket)

    async def _body(self, request: Request) -> bytes:
        """The body, read no further than a request can be long.

        A page in a browser can send other types of content than JSON to a local server without asking; those are
        refused.
        """
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            found = request.headers.get("content-type")
            raise RequestError(415, f"content-type: found {found!r}, expected 'application/json'")
        most = _MOST_BYTES_OF_ESCAPE * self.engine.limits.max_prompt_bytes + _JSON_ROOM
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise RequestError(413, f"body: found more than {most} bytes, expected less", code="body_too_long")
        return bytes(body)

    def _model(self) -> dict[str, Any]:
        return {"id": self.model, "object": "model", "created": self._began, "owned_by": "bytelm"}


class _EventStream(Response):
    """A stream of events that ends when its client goes, and no later than its deadline."""

    media_type = "text/event-stream"

    def __init__(self, routes: _Routes, ticket: Ticket, answers: Answers, deadline: float) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._routes, self._ticket, self._answers, self._deadline = routes, ticket, answers, deadline
        self._gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send."""

        async def listen() -> Any:
            message = await receive()
            self._gone = message["type"] == "http.disconnect"
            return message

        try:
            await _while_connected(listen, self._send(send))
        except BaseException as error:
            self._routes._end(_status(error), self._ticket)
            if not isinstance(error, _ClientGone | RequestError):
                raise

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        events = self._routes.events(self._ticket, self._answers, self._ticket.request)
        try:
            async with _until(self._deadline):
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                if self._gone:  # a send to nobody returns at once
                    raise _ClientGone
                self._routes._end(200, self._ticket)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except RequestError as error:
            self._routes._end(error.status, self._ticket)
            with contextlib.suppress(TimeoutError):  # a client that does not read is not waited for
                async with asyncio.timeout(_LAST_WORD_S):
                    await send({"type": "http.response.body", "body": sse(error.to_json()), "more_body": False})


class _ClientGone(Exception):
    """The client closed its connection."""


@contextlib.asynccontextmanager
async def _until(deadline: float) -> AsyncIterator[None]:
    """Give up at a time of the event loop.

    Raises:
        RequestError: 504.
    """
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        message = "the answer took longer than the server's limit (bytelm serve --timeout)"
        raise RequestError(504, message, kind="timeout_error", code="timeout") from None


async def _while_connected(receive: Callable[[], Awaitable[Any]], work: Awaitable[_T]) -> _T:
    """The result of ``work``, which is cancelled when the client goes.

    Raises:
        _ClientGone: it went.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise _ClientGone
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _status(error: BaseException) -> int:
    if isinstance(error, RequestError):
        return error.status
    return _GONE if isinstance(error, _ClientGone | asyncio.CancelledError) else 500


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    retry = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    return JSONResponse(error.to_json(), error.status, headers=retry)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(RequestError(error.status_code, message).to_json(), error.status_code, headers=error.headers)


async def _fail(request: Request, error: Exception) -> Response:
    return JSONResponse(RequestError(500, "internal error", kind="api_error").to_json(), 500)

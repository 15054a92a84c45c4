"""``bytelm serve``."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bytelm.cli.arguments import Device, Dtype, FourBit, Int8, Json, Model, Revision, load_model
from bytelm.cli.console import write_error, write_result
from bytelm.errors import ConfigError, DecodingError

if TYPE_CHECKING:
    from bytelm.serving import Engine
    from bytelm.serving.server import Server

_DRAFTS = ("auto", "none", "heads", "lookup")
_LOCAL = ("127.0.0.1", "::1", "localhost")

_Law = Annotated[
    str | None,
    typer.Option(
        "--law", metavar="NAME", help="product, chain or next, for requests that name none; by default the model's."
    ),
]
_Draft = Annotated[str, typer.Option("--draft", metavar="NAME", help="auto, none, heads or lookup: speed, not text.")]
_Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="What clients call the model. Default: its folder's name.")
]


def _whole(name: str, help: str) -> Any:
    return typer.Option(name, metavar="N", help=help)


def serve(
    model: Model,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, _whole("--port", "Where to listen; 0 for any that is free.")] = 8000,
    law: _Law = None,
    draft: _Draft = "auto",
    name: _Name = None,
    max_batch: Annotated[int, _whole("--max-batch", "Texts that are generated together.")] = 32,
    max_queue: Annotated[int, _whole("--max-queue", "Requests that wait; further ones get 429.")] = 256,
    max_prompt_bytes: Annotated[int, _whole("--max-prompt-bytes", "UTF-8 bytes of a request's prompts.")] = 65_536,
    timeout: Annotated[float, _whole("--timeout", "Seconds that a request may take, waiting included.")] = 300.0,
    grace: Annotated[float, _whole("--grace", "Seconds that running requests have after SIGTERM.")] = 10.0,
    dtype: Dtype = None,
    four_bit: FourBit = "dequantise",
    int8: Int8 = False,
    revision: Revision = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Serve a model over HTTP, with OpenAI's API.

    Paths: /v1/completions, /v1/models; also /health and /metrics.

    Requests join the running batch and leave it; an answer does not depend on who else is there, and is what bytelm
    generate gives for its seed. There is no access control: whoever reaches the address is served. After SIGTERM,
    running requests have --grace seconds; the exit status is then 0, and 130 after Ctrl-C.

    JSON fields: command, model, address, requests, symbols, forwards.
    """
    try:
        from bytelm.serving.server import Server, address_of, open_socket
    except ModuleNotFoundError as missing:
        if missing.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(f"bytelm serve needs {missing.name}: pip install 'bytelm[serve]'") from None
    from bytelm.serving import Engine, Limits

    if draft not in _DRAFTS:
        raise DecodingError(f"--draft: found {draft!r}, expected one of {', '.join(_DRAFTS)}")
    limits = Limits(
        max_batch=max_batch,
        max_queue=max_queue,
        max_prompt_bytes=max_prompt_bytes,
        timeout_s=timeout,
        grace_s=grace,
    )
    listening = open_socket(host, port, timeout)
    try:
        lm = load_model(model, device, dtype=dtype, four_bit=four_bit, revision=revision, int8=int8)
        engine = Engine(lm, law=law, draft=draft, limits=limits)
        called, address = name or _name_of(model), address_of(listening)
        if host not in _LOCAL:
            write_error(f"warning: {host} can be reached from other machines, and there is no access control")
        server = Server(engine, called, lambda: write_error(f"serving {called} at {address} (Ctrl-C ends)"))
        server.run(sockets=[listening])
    finally:
        listening.close()
    write_result({"command": "serve", "model": str(model), "address": address, **_account(server, engine)}, "", json)
    if server.signal == signal.SIGINT:
        raise KeyboardInterrupt


def _account(server: "Server", engine: "Engine") -> dict[str, Any]:
    """What was served."""
    totals = [session.totals for session in engine.sessions.values()]
    return {
        "requests": {str(status): count for status, count in sorted(server.metrics.requests.items())},
        "symbols": sum(total.symbols for total in totals),
        "forwards": sum(total.forwards for total in totals),
    }


def _name_of(model: Path) -> str:
    return str(model) if not model.is_dir() else model.resolve().name

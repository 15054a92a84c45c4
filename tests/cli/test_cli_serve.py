"""``bytelm serve`` as a process: its address, its signals, its exit status."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def start(*args):
    """A server on a free port; the process and its address."""
    # A shell starts its background jobs with SIGINT ignored: the handler is set, so that the test holds there too.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import bytelm.cli; sys.exit(bytelm.cli.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", *map(str, args), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stderr.readline()
    assert "http://127.0.0.1:" in line, line + process.stderr.read()
    return process, line.split(" at ")[1].split()[0]


def ask(address, **body):
    data = json.dumps({"prompt": "", "temperature": 0, **body}).encode()
    request = urllib.request.Request(f"{address}/v1/completions", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


def test_sigterm_ends_it_well(chained_model):
    process, address = start(chained_model, "--json", "--law", "next", "--grace", "5")
    assert ask(address, model=chained_model.name, max_tokens=7)["usage"]["completion_tokens"] == 7
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    result = json.loads(out.splitlines()[-1])
    assert (result["requests"], result["symbols"], result["address"]) == ({"200": 1}, 7, address)
    assert set(result) == {"command", "model", "address", "requests", "symbols", "forwards"}


def test_ctrl_c(chained_model):
    process, _ = start(chained_model)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "bytelm: interrupted\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--draft", "other"], "--draft: found 'other', expected one of auto, none, heads, lookup"),
        (["--law", "product"], "law 'product': this model has chained heads, expected one of chain, next"),
        (["--max-batch", "0"], "max_batch: found 0, expected a number of at least 1"),
        (["--host", "no.such.host.invalid"], "--host: found 'no.such.host.invalid', expected an address"),
        (["--port", "70000"], "--port: found 70000, expected a number from 0 to 65535"),
    ],
)
def test_what_it_refuses(chained_model, run, options, message):
    done = run("serve", chained_model, *options)
    assert done.status == 2
    assert message in done.err


def test_without_the_extra(chained_model, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "bytelm.serving.server", raising=False)
    done = run("serve", chained_model)
    assert (done.status, "pip install 'bytelm[serve]'" in done.err) == (2, True)

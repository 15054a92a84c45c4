"""What only a process of its own shows: imports, bytes of arguments, signals, pipes, full disks."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

PYTHON = [sys.executable, "-m", "bytelm"]


def _start(*args, **options):
    return subprocess.Popen([*PYTHON, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_quick_commands_import_no_torch():
    code = (
        "import sys; from bytelm.cli import main\n"
        "assert main(['encoding', 'list']) == 0\n"
        "assert main(['corpus', 'build', '/nonexistent', '--out', '/nonexistent/out']) == 2\n"
        "found = {'torch', 'lightning', 'transformers', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(found)}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "dense-ja" in done.stdout


def test_argument_that_is_not_utf8():
    process = _start("encoding", "show", b"\xe6\x9c\x88\xe6\x9c", "--json", env={**os.environ, "PYTHONUTF8": "1"})
    out, err = process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.startswith(b"bytelm: error: TEXT: text index 1: found the byte e6, not UTF-8")
    assert err.count(b"\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_interrupt():
    # A shell starts its background jobs with SIGINT ignored: the handler is set, so that the test holds there too.
    handler = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = (
        f"{handler}; import sys, bytelm.cli; print(1, flush=True); sys.exit(bytelm.cli.main(['generate', 'nowhere']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    time.sleep(0.5)  # generate waits for prompts on standard input
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == b"bytelm: interrupted\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_reader_that_went_away():
    with _start("encoding", "list") as process:
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_standard_output_that_is_full():
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PYTHON, "encoding", "list"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"bytelm: error: No space left on device\n"


def test_standard_output_of_another_character_set(documents, tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = _start("encoding", "show", "月", "--json", env=environment)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["text"] == "月"
    process = _start("encoding", "show", "月", env=environment)
    assert b"\\u6708" in process.communicate()[0]


def test_worker_processes(documents, tmp_path):
    done = subprocess.run(
        [*PYTHON, "corpus", "build", documents, "--out", tmp_path / "out", "--workers", "1", "--json"],
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["documents"] == 5

"""``bytelm generate --interactive``: from a pipe, and in a terminal of its own."""

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

import bytelm
from bytelm.cli.interactive import Conversation

SHORT = ("--max-new-tokens", 8)


def _talk(run, model, text, *options):
    return run("generate", model, "--interactive", *SHORT, *options, stdin=text.encode())


def test_lines_of_a_pipe(run, chained_model):
    outcome = _talk(run, chained_model, "朝の\n\n/seed 4\n/more 海\n/again\n雨\r\n", "--do-sample")
    lm = bytelm.load(chained_model)

    def continued(prompt, seed):
        return lm.generate([prompt], max_new_tokens=8, do_sample=True, seed=seed).texts[0]

    first = continued("朝の", 0)
    second = continued("朝の" + first, 0)
    begun = "朝の" + first + second + "海"
    texts = [first, second, continued(begun, 4), continued(begun, 5), continued("雨", 5)]
    assert outcome.status == 0
    assert outcome.out == "".join(f"{text}\n" for text in texts)
    assert outcome.err == "/seed 4\n"


def test_settings_and_help(run, chained_model):
    lines = "/law next\n/do-sample on\n/temperature 0.5\n/stop 。\n//朝\n/seed\n/help\n/options\n"
    outcome = _talk(run, chained_model, lines)
    lm = bytelm.load(chained_model)
    expected = lm.generate(["/朝"], max_new_tokens=8, law="next", do_sample=True, temperature=0.5, stop="。")
    assert outcome.out == expected.texts[0] + "\n"
    assert outcome.err.startswith("/law next\n/do_sample on\n/temperature 0.5\n/stop 。\n/seed 0\nEvery line begins")
    assert "/top_k (default)\n" in outcome.err


def test_lines_that_are_refused(run, chained_model, tmp_path):
    _talk(run, chained_model, "/temprature 1\n").refused("standard input:1: /temprature", "/help")
    _talk(run, chained_model, "/seed one\n").refused("standard input:1: /seed: found 'one', expected a whole number")
    _talk(run, chained_model, "/do_sample yes\n").refused("found 'yes', expected on or off")
    _talk(run, chained_model, "\n").refused("standard input:1: found an empty line")
    outcome = _talk(run, chained_model, "/law product\n朝\n")
    assert (outcome.status, outcome.out) == (2, "")
    assert "standard input:2: law 'product'" in outcome.err
    outcome = _talk(run, chained_model, "月" * 60 + "\n")
    outcome.refused("standard input:1: ", "context of 64 bytes")
    outcome = run("generate", chained_model, "--interactive", stdin=b"\xff\n")
    outcome.refused("standard input:1: found the bytes ff")
    for other in (("月",), ("--prompts-file", tmp_path), ("--json",), ("--trace",)):
        run("generate", chained_model, "--interactive", *other).refused("--interactive: found prompts")
    _talk(run, chained_model, "月\n", "--num-return-sequences", 2).refused("num_return_sequences: found 2")


class _Interrupted:
    law = "next"

    def stream(self, prompt, **options):
        yield "波"
        raise KeyboardInterrupt


def test_what_was_written_stays_after_an_interrupt(capsys):
    conversation = Conversation(_Interrupted(), {})
    conversation.take("朝")
    assert conversation.text == "朝波"
    conversation.take("")
    assert conversation.text == "朝波波"
    assert capsys.readouterr().out == "波\n波\n"


_SLOW = """
import fcntl, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C of this terminal is ours
from bytelm.cli.interactive import talk
class Slow:
    law = "next"
    class tokenizer:
        name = "slow"
    def stream(self, prompt, **options):
        yield f"[{prompt}]"
        for _ in range(400):
            time.sleep(0.02)
            yield "."
        yield "never"
talk(Slow(), {})
print("left")
"""


class _Terminal:
    """A process in a terminal of its own."""

    def __init__(self, *command):
        self.master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "PYTHONUTF8": "1"}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # ignored where tests run in the background
        )
        os.close(slave)
        self.shown = b""

    def wait_for(self, text, seconds=60):
        """What is shown up to ``text``, which is then forgotten."""
        until = time.monotonic() + seconds
        while text.encode() not in self.shown:
            ready, _, _ = select.select([self.master], [], [], max(0, until - time.monotonic()))
            assert ready, self.shown
            self.shown += os.read(self.master, 4096)
        before, self.shown = self.shown.split(text.encode(), 1)
        return before.decode("utf-8", "replace")

    def type(self, text):
        os.write(self.master, text.encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_keys_of_a_terminal():
    with _Terminal(sys.executable, "-c", _SLOW) as terminal:
        assert "Ctrl-D ends" in terminal.wait_for("> ")
        terminal.type("ab\n")
        terminal.wait_for("[ab]...")
        terminal.type("\x03")
        assert "never" not in terminal.wait_for("stopped")
        terminal.wait_for("> ")
        terminal.type("\n")
        terminal.wait_for("[ab[ab]...")  # it goes on with what was written
        terminal.type("\x03")
        terminal.wait_for("> ")
        terminal.type("/nonsense\n")
        assert "error: /nonsense" in terminal.wait_for("> ")  # and goes on
        terminal.type("\x04")
        terminal.wait_for("left")
        assert terminal.process.wait(10) == 0


@pytest.mark.slow  # readline can miss a signal that comes while it begins to wait: a second one then counts
def test_a_line_that_is_given_up():
    with _Terminal(sys.executable, "-c", _SLOW) as terminal:
        terminal.wait_for("> ")
        terminal.type("half a line")
        terminal.wait_for("half a line")
        terminal.type("\x03\x03")
        terminal.wait_for("> ")
        terminal.type("\x04")
        terminal.wait_for("left")


@pytest.mark.slow
def test_a_model_in_a_terminal(chained_model):
    command = ("-m", "bytelm", "generate", str(chained_model), "--interactive", "--max-new-tokens", "8")
    expected = bytelm.load(chained_model).generate(["ab"], max_new_tokens=8).texts[0]
    with _Terminal(sys.executable, *command) as terminal:
        terminal.wait_for("> ")
        terminal.type("ab\n")
        shown = terminal.wait_for("> ").replace("\r\n", "\n")
        assert shown.split("ab\n", 1)[1].strip() == expected.strip()
        terminal.type("\x04")
        assert terminal.process.wait(10) == 0

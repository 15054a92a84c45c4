"""Progress: after two seconds, on a terminal, unless somebody asked for quiet; never on standard output."""

import io
import os
import pty
import select
import sys
import time

import pytest

from bytelm.cli import console

BAR = "━"


class _Terminal:
    """A terminal in the place of standard error."""

    def __init__(self):
        self.master, slave = pty.openpty()
        self.file = os.fdopen(slave, "w", encoding="utf-8")

    def read(self):
        """What was written so far."""
        found = b""
        while select.select([self.master], [], [], 0.05)[0]:
            found += os.read(self.master, 65536)
        return found.decode("utf-8", "replace")


@pytest.fixture
def terminal(monkeypatch):
    found = _Terminal()
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    found.attach = lambda: monkeypatch.setattr(sys, "stderr", found.file)  # in the test: pytest sets it before
    console.set_quiet(False)
    yield found
    console.set_quiet(False)
    found.file.close()
    os.close(found.master)


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(console, "BAR_AFTER_S", 0.3)


def test_a_bar_appears_after_two_seconds():
    assert console.BAR_AFTER_S == 2.0


def test_quick_work_shows_nothing(terminal, soon, capsys):
    terminal.attach()
    with console.working("sleeping"):
        time.sleep(0.05)
    assert terminal.read() == ""
    assert capsys.readouterr().out == ""


def test_a_bar_appears_and_disappears(terminal, soon, capsys):
    terminal.attach()
    with console.count_progress("sleeping", 4, "naps") as advance:
        time.sleep(0.1)
        assert terminal.read() == ""
        advance(3)
        time.sleep(0.6)
        shown = terminal.read()
        assert "sleeping" in shown
        assert "3 of 4 naps" in shown
        assert BAR in shown
    assert terminal.read().endswith("\x1b[2K")  # the line is erased
    assert capsys.readouterr().out == ""


def test_one_bar_after_another(terminal, soon):
    terminal.attach()
    for name in ("first", "second"):
        with console.working(name):
            time.sleep(0.5)
            assert name in terminal.read()


def test_an_error_ends_the_bar(terminal, soon):
    terminal.attach()

    def fail():
        with console.working("trying"):
            time.sleep(0.4)
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    terminal.read()
    time.sleep(0.4)
    assert terminal.read() == ""


def test_quiet(terminal, soon):
    terminal.attach()
    console.set_quiet(True)
    with console.working("sleeping"):
        time.sleep(0.5)
    console.write_note("a note")
    assert terminal.read() == ""
    console.write_error("an error")
    assert "an error" in terminal.read()


def test_no_terminal(monkeypatch, soon):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with console.working("sleeping"):
        time.sleep(0.5)
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_is_an_option_of_every_command(run, chained_model, place):
    command = ("generate", chained_model, "朝の", "--max-new-tokens", 4)
    loud = run(*command)
    quiet = run("--quiet", *command) if place == "before" else run(*command, "--quiet")
    assert "chars/s" in loud.err
    assert (quiet.status, quiet.out, quiet.err) == (0, loud.out, "")
    assert "chars/s" in run(*command).err  # it does not last


def test_a_command_shows_how_far_it_is(terminal, monkeypatch, documents, tmp_path):
    terminal.attach()
    from bytelm.cli import main

    monkeypatch.setattr(console, "BAR_AFTER_S", 0.0)
    status = main(["corpus", "build", str(documents), "--out", str(tmp_path / "corpus"), "--workers", "0"])
    assert status == 0
    assert "documents" in terminal.read()
    assert main(["corpus", "info", str(tmp_path / "corpus"), "--quiet"]) == 0
    assert terminal.read() == ""

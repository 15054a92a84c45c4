"""SIGINT while torch is being imported."""

import signal
import threading
import time

import pytest
import torch

from bytelm.cli.interrupts import outside_of_torch_import

pytestmark = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread"
)


@pytest.fixture
def default_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_handler")
def test_it_waits_until_torch_is_there(monkeypatch):
    monkeypatch.setattr(torch.__spec__, "_initializing", True, raising=False)
    reached = []
    with pytest.raises(KeyboardInterrupt), outside_of_torch_import():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        reached.append("torch is not there yet")
        torch.__spec__._initializing = False
        for _ in range(1000):
            time.sleep(0.01)
        reached.append("nothing came")
    assert reached == ["torch is not there yet"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("default_handler")
def test_it_comes_at_once_otherwise():
    with pytest.raises(KeyboardInterrupt), outside_of_torch_import():
        signal.raise_signal(signal.SIGINT)


def test_the_handler_of_somebody_else_stays():
    calls = []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:
        with outside_of_torch_import():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [signal.SIGINT]

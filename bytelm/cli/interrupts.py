"""Ctrl-C while torch is being imported: it waits, for C++ there ends the process where an exception comes up."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

_LATER = 0.05
"""Seconds after which it is asked again whether torch is there."""


@contextlib.contextmanager
def outside_of_torch_import() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, but while torch is being imported only as soon as it is there.

    Where something else than Python's default handles SIGINT, or outside of the main thread, nothing changes.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: object) -> None:
    if not _is_torch_being_imported():
        raise KeyboardInterrupt
    again = threading.Timer(_LATER, signal.raise_signal, (number,))
    again.daemon = True
    again.start()


def _is_torch_being_imported() -> bool:
    return bool(getattr(getattr(sys.modules.get("torch"), "__spec__", None), "_initializing", False))

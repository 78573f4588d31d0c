"""Ctrl-C: the first lets the work at hand end and be saved, the second ends at once.

Work is saved in pieces, a pass over the data or a generation of a search
(`engine/records.py`). What is interrupted between two of them loses nothing.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_asked = threading.Event()  # of the process, as signals are


@contextlib.contextmanager
def gracefully(say: Callable[[str], None]) -> Iterator[None]:
    """Turn the first Ctrl-C into a request to stop after the piece of work at hand.

    Args:
      say: tells the user what happens now.
    """

    def ask(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _asked.set()
        say("stopping after this pass or generation; Ctrl-C again stops at once")

    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread alone
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _asked.clear()


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt where the user has asked to stop."""
    if _asked.is_set():
        raise KeyboardInterrupt

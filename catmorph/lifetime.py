"""How a process of catmorph begins and ends: both would take long for the thousands of modules that it imports."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_GARBAGE_THRESHOLD = 100_000
"""New objects before Python looks for cycles of garbage: at its own 700 that takes a fifth of the time of imports."""

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class Leaving:
    """Ends the process at once, with `status`: taking its modules apart first would take 0.2 s."""

    def __init__(self, status: int):
        self.status = status

    def __call__(self) -> None:
        """Say what is still to be said, and end."""
        # A caller may have closed them (`>&-`).
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.status)


def begin(status: int) -> Leaving:
    """Call before anything large is imported; the process ends with the `status` of what is returned."""
    gc.set_threshold(_GARBAGE_THRESHOLD)
    # A thread of numpy's BLAS that has just begun looks for work for 0.1 s, on a core that another process needs. Not
    # in os.environ: commands that are called by this one shall have as many as they like.
    if _BLAS_THREADS not in os.environ:
        os.putenv(_BLAS_THREADS, "1")
    leaving = Leaving(status)
    # What is registered first is called last, when all that is to be closed is closed.
    atexit.register(leaving)
    return leaving


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM, whose handlers may raise in the main thread; they act at the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}
    try:
        for one in _INTERRUPTS:
            before[one] = signal.signal(one, lambda number, frame: came.append(number))
        yield
    finally:
        for one, handler in before.items():
            # None: it was not set from Python, and cannot be set again.
            signal.signal(one, signal.SIG_DFL if handler is None else handler)
        for number in came[:1]:
            signal.raise_signal(number)

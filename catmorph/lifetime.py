"""How a process of catmorph begins and ends: both would take long for the thousands of modules that it imports."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import suppress

_GARBAGE_THRESHOLD = 100_000
"""New objects before Python looks for cycles of garbage: at its own 700 that takes a fifth of the time of imports."""


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
    leaving = Leaving(status)
    # What is registered first is called last, when all that is to be closed is closed.
    atexit.register(leaving)
    return leaving

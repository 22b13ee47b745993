"""Begins the process that worker processes are forked from; `catmorph.engine` has it imported there, first.

Nothing else may import it: that process would end as this one does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import wait
from types import TracebackType

from catmorph.lifetime import begin

_END_SECONDS = 5.0
"""How long a worker that could not begin waits for its command to end, before it says why."""


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say why a worker could not begin, unless nobody waits for it any more.

    Workers are forked when the imports here are done. A command that was stopped meanwhile is not there any more, or
    takes away, as one of the last things that it does, the semaphores that a worker begins with.
    """
    parent = _parent_of(trace)
    if parent is None or not _closes(parent):
        sys.__excepthook__(kind, error, trace)


def _parent_of(trace: TracebackType | None) -> int | None:
    """Return the pipe that the worker's parent holds open; multiprocessing tells it only to a worker that has begun."""
    while trace is not None:
        if "parent_sentinel" in trace.tb_frame.f_locals:
            return trace.tb_frame.f_locals["parent_sentinel"]
        trace = trace.tb_next
    return None


def _closes(pipe: int) -> bool:
    end = time.monotonic() + _END_SECONDS
    with suppress(OSError):
        while wait([pipe], max(0.0, end - time.monotonic())):
            # What the worker has not read is still in it.
            if not os.read(pipe, 65536):
                return True
    return False


# Ctrl-C reaches every process of the terminal; the command itself sees to it. It was held back until here.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
sys.excepthook = _tell
begin(0)

"""Reading again what failed for a cause that may pass, such as a network file system that stalls."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

WAITS_SECONDS = (0.2, 1.0, 3.0)
"""Waits before the second, third and fourth attempt."""

_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENOMEM,
            errno.EMFILE, errno.ENFILE, errno.ENOTCONN, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED,
            errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EREMOTEIO}  # fmt: skip
_CFITSIO_READ_ERROR = re.compile(r"FITSIO status = 108\b")
"""cfitsio keeps no errno; 108 is a read that the system refused (a file that ends early is 107)."""


def may_pass(error: BaseException | None) -> bool:
    """Return whether the system call behind `error` (itself, or what it was raised from) may succeed later."""
    while error is not None:
        if isinstance(error, OSError) and (error.errno in _PASSING or _CFITSIO_READ_ERROR.search(str(error))):
            return True
        error = error.__cause__
    return False


def patiently(read: Callable[[], Result], waits: tuple[float, ...] | None = None) -> Result:
    """Return ``read()``; after an error that may pass, wait and try again, three times by default."""
    for wait in WAITS_SECONDS if waits is None else waits:
        try:
            return read()
        except Exception as error:
            if not may_pass(error):
                raise
        time.sleep(wait)
    return read()

"""Workers for the tests of the engine; they are run in other processes, which import them by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from catmorph.errors import MosaicError


def double(task: tuple[str, int]) -> int:
    return 2 * task[1]


def process_of(task: tuple[str, int]) -> int:
    return os.getpid()


def killed_once(task: tuple[str, int]) -> int:
    """Kill its process at the first attempt at task 3; leave a mark each time a task is done."""
    folder, number = task
    mark = Path(folder, "was killed")
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with open(Path(folder, f"done {number}"), "a") as file:
        file.write("x")
    return 2 * number


def slow_first(task: tuple[str, int]) -> int:
    """Leave a mark when a task is begun; the first takes longest."""
    folder, number = task
    Path(folder, f"begun {number}").touch()
    time.sleep(0.0 if number else 0.3)
    return number


def takes_minutes(task: tuple[str, int]) -> int:
    time.sleep(300)
    return task[1]


def large(task: tuple[str, int]) -> bytes:
    return bytes(20_000_000)


def always_killed(task: tuple[str, int]) -> int:
    number = task[1]
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def fails(task: tuple[str, int]) -> int:
    if task[1] == 2:
        raise MosaicError("is not FITS", where="a.fits", hint="download it again")
    return task[1]


def fails_first(task: tuple[str, int]) -> int:
    """Leave marks when a task is begun and ended; the first fails at once, the others take half a second."""
    folder, number = task
    Path(folder, f"begun {number}").touch()
    if number == 0:
        raise MosaicError("is not FITS", where="a.fits")
    time.sleep(0.5)
    Path(folder, f"ended {number}").touch()
    return number


def takes_a_second(task: tuple[str, int]) -> int:
    time.sleep(1)
    return task[1]

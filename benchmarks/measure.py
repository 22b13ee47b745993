"""Timing whole commands with the memory of all their processes, and naming the machine (Linux)."""

from __future__ import annotations

import compileall
import ctypes
import functools
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CATMORPH = (sys.executable, "-m", "catmorph")
SAMPLE_SECONDS = 0.2
"""Between two looks at the memory, unless said; each takes a millisecond. A peak shorter than this may be missed."""
_PATIENCE_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Measured:
    """A command: seconds on the wall and of processors, and the most anonymous memory of its processes together.

    The memory is the largest of the sums of RssAnon over the processes that lived at one time, in MB (1e6 bytes, as
    the kernel's kB are 1024). Pages that a forked process shares with its parent count in both.
    """

    seconds: float
    processor_seconds: float
    peak_anonymous_mb: float

    def rounded(self) -> dict[str, float]:
        """Return it as plain values."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def measure(*command: str, folder: Path, every: float = SAMPLE_SECONDS) -> Measured:
    """Run a command in `folder` until it and all that it started have ended, and look at the memory `every` seconds.

    Nothing else may be started by this process meanwhile: every child is taken for the command's.

    Raises
    ------
    SystemExit
        When it fails, or leaves processes behind that do not end.
    """
    _compile()
    _adopt_orphans()
    before, start = _processor_seconds(), time.perf_counter()
    peak, done = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(peak, done, every))
    # A file, as waiting for the end of a pipe would be waiting for everybody who has it.
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors)
        watcher.start()
        try:
            process.wait()
            left = _wait_for_all()
            seconds = time.perf_counter() - start
        except BaseException:
            process.terminate()
            _wait_for_all()
            raise
        finally:
            done.set()
            watcher.join()
        errors.seek(0)
        told = errors.read().strip()
    if process.returncode or left:
        ending = f"{left} processes did not end" if left else f"status {process.returncode}"
        sys.exit(f"{' '.join(command[:5])} ...: {ending}. {told}")
    return Measured(seconds, _processor_seconds() - before, peak[0])


@functools.cache
def _compile() -> None:
    """Compile catmorph's modules, as pip does of what it installs: those of an editable tree may not be."""
    package = find_spec("catmorph")
    assert package is not None
    for folder in package.submodule_search_locations or ():
        compileall.compile_dir(folder, quiet=2)


def _adopt_orphans() -> None:
    """Make processes whose parent has ended children of this one, so that they are counted and waited for.

    Worker processes end after the command that started them, which does not wait: otherwise their processor seconds
    are nobody's.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


def _processor_seconds() -> float:
    """Return those of all children that have been waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_for_all() -> int:
    """Wait for all children; kill those that live on, and return their number."""
    until = time.perf_counter() + _PATIENCE_SECONDS
    with suppress(ChildProcessError):  # there are none any more
        while time.perf_counter() < until:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.005)
    family = _family(os.getpid())
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        while family:
            os.waitpid(-1, 0)
    return len(family)


def _watch(peak: list[float], done: threading.Event, every: float) -> None:
    while not done.wait(every):
        peak[0] = max(peak[0], _sum_of_anonymous_mb(_family(os.getpid())))


def _family(pid: int) -> list[int]:
    """Return all that a process has started, and what these have started in turn."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:  # it has ended
                continue
            parents.setdefault(parent, []).append(int(path.name))
    family, new = [], parents.get(pid, [])
    while new:
        family += new
        new = [child for one in new for child in parents.get(one, [])]
    return family


def _sum_of_anonymous_mb(processes: Iterable[int]) -> float:
    total = 0
    for pid in processes:
        with suppress(OSError):  # it has ended
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    total += int(line.split()[1])
    return total * 1024 / 1e6


def machine() -> dict[str, Any]:
    """Return the processor, cores, system, and how busy it is."""
    return {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(),
            "load_at_the_end": [round(value, 2) for value in os.getloadavg()]}


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, catmorph and those of `packages` that are installed."""
    found = {"python": platform.python_version()}
    for name in ("catmorph", *packages):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())

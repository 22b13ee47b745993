"""What the benchmarks share: timing whole commands with the memory of all their processes, and naming the machine."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

CATMORPH = (sys.executable, "-m", "catmorph")


@dataclass(frozen=True)
class Measured:
    """A command: seconds on the wall and of processors, and the most anonymous memory of its processes together."""

    seconds: float
    processor_seconds: float
    peak_anonymous_mb: float

    def rounded(self) -> dict[str, float]:
        """Return it as plain values."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def measure(*command: str, folder: Path) -> Measured:
    """Run a command in `folder` to its end.

    Raises
    ------
    SystemExit
        When it fails.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak, done = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, done))
    watcher.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command[:5])} ...: {errors}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(seconds, used, peak[0])


def _watch(pid: int, peak: list[float], done: threading.Event) -> None:
    while not done.wait(0.2):
        peak[0] = max(peak[0], sum(map(_anonymous_mb, _family(pid))))


def _family(pid: int) -> list[int]:
    """Return a process and all that it has started, and these in turn."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:  # it has ended
                continue
            parents.setdefault(parent, []).append(int(path.name))
    family, new = [], [pid]
    while new:
        family += new
        new = [child for one in new for child in parents.get(one, [])]
    return family


def _anonymous_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))


def machine() -> dict[str, Any]:
    """Return the processor, cores, system, and how busy it is."""
    return {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(),
            "load_at_the_end": [round(value, 2) for value in os.getloadavg()]}


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, catmorph and `packages`."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("catmorph", *packages)}}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())

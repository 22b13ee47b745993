"""Killing runs: at steps inside writes, at random moments, whole or in part, and going on."""

from __future__ import annotations

import itertools
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATIENCE_SECONDS = 120
STAGES = ("ingest", "cutouts", "classify")


@dataclass(frozen=True)
class Kill:
    """A kill: its kind, whether workers cut, and the step or the share of a run's time at which it comes."""

    kind: str
    pool: bool
    moment: float


class Runs:
    """Runs of `catmorph`, one at a time, each a process group of its own."""

    def __init__(self, folder: Path):
        self.output = folder / "output"
        search = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": search}
        self._process = subprocess.Popen([sys.executable, str(HERE / "launcher.py")], env=environment, text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        self.child = 0

    def start(self, folder: Path, *arguments: object, pool: bool = False, step: int = 0) -> int:
        """Start ``catmorph ARGUMENTS`` in `folder` and return the process id."""
        request = {"arguments": list(map(str, arguments)), "folder": str(folder), "output": str(self.output),
                   "pool": pool, "step": step}  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        self.child = self._answer(PATIENCE_SECONDS)["process"]
        return self.child

    def ended(self, seconds: float) -> bool:
        """Wait up to `seconds`; return whether the run has ended."""
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def wait(self, seconds: float = PATIENCE_SECONDS) -> tuple[int, str]:
        """Wait for the run and every process it started; return its exit status and what it printed."""
        status = self._answer(seconds)["status"]
        end = time.monotonic() + 10
        while processes_of(self.child):
            assert time.monotonic() < end, f"left behind: {processes_of(self.child)}"
            time.sleep(0.01)
        return status, self.output.read_text()

    def close(self) -> None:
        """End the launcher."""
        self._process.communicate(timeout=10)

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self.ended(seconds), f"no end after {seconds} s: {self.output.read_text()}"
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def processes_of(session: int) -> dict[int, str]:
    """Return the living processes of a session: id -> command line."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == session and state != "Z":
                found[int(path.parent.name)] = (path.parent / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def workers_of(session: int) -> list[int]:
    """Return the processes of the session's pool: the children of its fork server."""
    processes = processes_of(session)
    parents = {pid: _parent(pid) for pid in processes}
    return sorted(pid for pid, parent in parents.items() if parents.get(parent) == session)


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def drawn(generator: random.Random, steps: int) -> Iterator[Kill]:
    """Draw kills of all kinds without end, some at a step inside a write, the others at a moment."""
    kinds = [("step", False), ("group", True), ("step", False), ("group", False), ("worker in a write", True),
             ("main", True), ("worker", True)]  # fmt: skip
    for kind, pool in itertools.cycle(kinds):
        moment = generator.random()
        # Runs that go on have fewer writes left: early steps more often.
        yield Kill(kind, pool, 1 + int(steps * moment**2) if kind == "step" else moment)


def kill(runs: Runs, survey: Any, one: Kill, seconds: float, arguments: tuple[str, ...]) -> str:
    """Start a run, kill as `one` says, wait for its processes to end, and return where it was hit."""
    in_a_write = survey.run.parent / "kill-a-worker"
    if one.kind == "worker in a write":
        in_a_write.parent.mkdir(exist_ok=True)
        in_a_write.write_text(["sync", "rename", "renamed", "folder"][int(4 * one.moment)])
    pool = ("--workers", "2") if one.pool else ()
    process = runs.start(survey.folder, *arguments, *pool, pool=one.pool, step=int(one.moment) * (one.kind == "step"))
    if one.kind == "worker":
        _kill_a_worker(runs, process, one.moment)
    elif one.kind in ("group", "main") and not runs.ended(seconds * one.moment):
        (os.killpg if one.kind == "group" else os.kill)(process, signal.SIGKILL)
    status, text = runs.wait()
    if one.kind.startswith("worker"):
        assert status == 0, text
        hit = one.kind != "worker in a write" or not in_a_write.exists()
        in_a_write.unlink(missing_ok=True)
        return "a worker" + one.kind.removeprefix("worker") if hit else ""
    assert status in (0, -signal.SIGKILL), text
    return _where(survey, text) if status else ""


def _kill_a_worker(runs: Runs, process: int, moment: float) -> None:
    while not runs.ended(0.002):
        workers = workers_of(process)
        if workers:
            runs.ended(0.2 + 0.6 * moment)
            for worker in workers_of(process)[:1]:
                os.kill(worker, signal.SIGKILL)
            return


def _where(survey: Any, text: str) -> str:
    """Say where a run was killed: the step, or the stage and the files that were being written."""
    step = [line.split(maxsplit=2) for line in text.splitlines() if line.startswith("KILLED")]
    if step:
        _, what, path = step[0]
        return f"{what} of {Path(path).relative_to(survey.run) if Path(path) != survey.run else 'the run folder'}"
    done = sum(any(line.startswith(f"{stage}:") for line in text.splitlines()) for stage in STAGES)
    partial = [path.parent.relative_to(survey.run) for path in survey.run.rglob(".partial-*")]
    stage = (*STAGES, "release")[done] if survey.run.exists() else "start"
    return f"{stage}, writing {', '.join(map(str, partial))}" if partial else stage

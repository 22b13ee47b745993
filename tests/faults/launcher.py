"""Starts `catmorph` again and again without importing it again: a clean process that forks one run a request.

Each run is a process group and session of its own, as from a shell. A request is a line of JSON: ``arguments``,
``folder``, ``output`` (file for stdout and stderr), ``pool`` (cut in worker processes, slowly) and ``step`` (kill the
group at that step of a write, 0 for never). The answers are the process id and, when it has ended, its status.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from functools import wraps
from itertools import count
from typing import Any

PAUSE_SECONDS = 0.01
"""Between the steps of a write in a worker process, so that a kill at any moment is likely inside one."""


def watch_writes(step: Any) -> None:
    """Call ``step(what, path)`` before a file is synced, and before and after it is renamed."""
    fsync, replace = os.fsync, os.replace

    @wraps(fsync)
    def watched_fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        step("folder" if os.path.isdir(path) else "sync", path)
        fsync(descriptor)

    @wraps(replace)
    def watched_replace(source: Any, target: Any) -> None:
        step("rename", target)
        replace(source, target)
        step("renamed", target)

    os.fsync, os.replace = watched_fsync, watched_replace


def kill_at(number: int) -> Any:
    """Return a step function that kills the process group at step `number`, leaving half of a file being written."""
    steps = count(1)

    def step(what: str, path: Any) -> None:
        if next(steps) != number:
            return
        print(f"KILLED {what} {path}", flush=True)
        if what == "sync":
            os.truncate(path, os.path.getsize(path) // 2)
        os.killpg(0, signal.SIGKILL)

    return step


def slow_cut_chunk(task: Any) -> Any:
    """Cut a chunk with pauses inside its writes.

    The worker that finds ``kill-a-worker`` dies in the middle of one; one that finds ``be-slow`` takes minutes.
    """
    from catmorph.stamps import build

    kill = task.run_folder.parent / "kill-a-worker"
    if (task.run_folder.parent / "be-slow").exists():
        (task.run_folder.parent / f"slow-{os.getpid()}").touch()
        time.sleep(300)

    def step(what: str, path: Any) -> None:
        time.sleep(PAUSE_SECONDS)
        # Two workers may find it: the one that removes it dies.
        with suppress(FileNotFoundError):
            if kill.read_text() == what:
                kill.unlink()
                os.kill(os.getpid(), signal.SIGKILL)

    if not hasattr(os.fsync, "__wrapped__"):
        watch_writes(step)
    return build.cut_chunk(task)


def run(request: dict[str, Any]) -> None:
    """Be the command line."""
    from catmorph.cli import main

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    os.chdir(request["folder"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if request["pool"]:
        from launcher import slow_cut_chunk as worker  # not __main__'s, which workers cannot import

        from catmorph import engine
        from catmorph.pipeline import cutouts

        engine.WORTH_A_POOL_SECONDS = 0.0
        cutouts.build = _Replaced(cutouts.build, cut_chunk=worker)  # type: ignore[assignment]
    if request["step"]:
        watch_writes(kill_at(request["step"]))
    sys.argv = ["catmorph", *request["arguments"]]
    main()


class _Replaced:
    """A module with some names replaced, for one importer alone."""

    def __init__(self, module: Any, **names: Any):
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def serve() -> None:
    """Answer requests until stdin ends."""
    import catmorph.cli
    from catmorph.lifetime import begin

    # As in a command of its own, before its imports: what they have done at the end is done before it ends at once.
    leaving = begin(1)
    catmorph.cli.begin = lambda status: leaving
    import catmorph.cli.production
    import catmorph.inference.predict
    import catmorph.models.checkpoint
    import catmorph.pipeline.classify
    import catmorph.pipeline.cutouts
    import catmorph.pipeline.release
    import catmorph.preflight

    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        child = os.fork()
        if not child:
            run(request)
        print(json.dumps({"process": child}), flush=True)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    serve()

"""The record of one `catmorph run`: run.json, the log, and the command that is called at the end."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catmorph.errors import CatmorphError, UsageError
from catmorph.files import digest, digest_json, write_json
from catmorph.logbook import Logbook, now
from catmorph.release.provenance import package_versions, recipe_without_paths
from catmorph.workspace import RunFolder

AFTER_SECONDS = 600
"""How long the command called at the end may take."""


@dataclass
class RunRecord:
    """What a run did, stage by stage; written as run.json when it ends, however it ends.

    Attributes
    ----------
    stages : list of dict
        ``stage``, ``seconds``, ``made``, ``kept``, ``counts``, ``flags``, ``failures``, ``why``; ``error`` for the
        one that failed.
    """

    run: RunFolder
    started: str = field(default_factory=now)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = Logbook(self.run.path)

    @property
    def path(self) -> Path:
        """The manifest."""
        return manifest_path(self.run)

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a stage; the block adds its counts to the dictionary it gets."""
        with self.log.timed("stage", stage=name) as facts:
            self.stages.append(facts)
            yield facts

    def finish(self, status: int, outcome: str, **facts: Any) -> None:
        """Write run.json and the last line of the log."""
        self.log.note("end", status=status, outcome=outcome)
        self.log.close()
        write_json(self.path, {
            "recipe": recipe_without_paths(self.run.recipe),
            "recipe_sha256": digest_json(recipe_without_paths(self.run.recipe)),
            "versions": package_versions(),
            "started": self.started,
            "ended": now(),
            "status": status,
            "outcome": outcome,
            "stages": self.stages,
            "fingerprints": _fingerprints(self.run),
            "release": _released(self.run),
            **facts,
        })


def manifest_path(run: RunFolder) -> Path:
    """Return the path of run.json."""
    return run.path / "run.json"


def _fingerprints(run: RunFolder) -> dict[str, str | None]:
    products = {"sources": run.sources_path(), "rejected": run.rejected_path(), "plan": run.plan_path()}
    return {name: (run.ledger.read(path) or {}).get("fingerprint") for name, path in products.items()}


def _released(run: RunFolder) -> dict[str, str]:
    files = sorted(run.release_folder().glob("*")) if run.release_folder().is_dir() else []
    return {path.name: digest(path) for path in files if path.is_file()}


def parse_after(command: str | None) -> list[str]:
    """Split the command to call at the end into its arguments; no shell will see it.

    Raises
    ------
    UsageError
        When quotes do not close.
    """
    try:
        return shlex.split(command or "")
    except ValueError as error:
        raise UsageError(f"--after {command!r} cannot be split into arguments: {error}") from None


def call_after(arguments: list[str], manifest: Path) -> None:
    """Call a command with the path of run.json as its last argument.

    Raises
    ------
    CatmorphError
        When it cannot be started, takes too long, or does not end with 0. What the run made stays as it is.
    """
    if not arguments:
        return
    try:
        done = subprocess.run([*arguments, str(manifest)], timeout=AFTER_SECONDS, check=False, stdin=subprocess.DEVNULL,
                              env=dict(os.environ))
    except subprocess.TimeoutExpired:
        raise CatmorphError(f"the command after the run took more than {AFTER_SECONDS} s", where=arguments[0]) from None
    except OSError as error:
        raise CatmorphError(f"the command after the run cannot be started: {error.strerror}",
                            where=arguments[0]) from error
    if done.returncode:
        raise CatmorphError(f"the command after the run ended with status {done.returncode}", where=arguments[0])

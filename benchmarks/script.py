"""What the scripts of the benchmarks share: their options, a folder to work in, and the file of their result."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from measure import Measured, machine, versions

_START = time.perf_counter()


def options(doc: str, **whole_numbers: int) -> argparse.ArgumentParser:
    """Return a parser with --out, --folder and options of whole numbers, given with their defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in whole_numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default: {value:,}")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: the system's temporary folder)")
    parser.add_argument("--out", type=Path, help="write the result to this file too")
    return parser


def say(text: str) -> None:
    """Tell how far it is, with the seconds since the start."""
    print(f"{time.perf_counter() - _START:8.1f} s  {text}", file=sys.stderr, flush=True)


@contextmanager
def scratch(folder: Path | None, *, gigabytes: float) -> Iterator[Path]:
    """Give a new folder within `folder` and remove it at the end, be it by an error, an interrupt or SIGTERM.

    Raises
    ------
    SystemExit
        When fewer than `gigabytes` are free there.
    """
    within = (folder or Path(tempfile.gettempdir())).resolve()
    if not within.is_dir():
        sys.exit(f"{within}: no such folder; give another one by --folder")
    free = shutil.disk_usage(within).free / 1e9
    if free < gigabytes:
        sys.exit(f"{within}: {free:.1f} GB are free and {gigabytes:.1f} needed; give another place by --folder")
    say(f"up to {gigabytes:.1f} GB in {within}, {free:.0f} GB are free")

    def leave(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with tempfile.TemporaryDirectory(dir=within, prefix="catmorph-benchmark-") as name:
            yield Path(name)
    finally:
        signal.signal(signal.SIGTERM, before)


class Report:
    """The result of a benchmark, written anew after each step, so that one that is stopped keeps what it measured.

    Until it ends, the file says ``"unfinished": true``.
    """

    def __init__(self, out: Path | None, *packages: str):
        self.out, self.packages = out, packages
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(out if out.exists() else out.parent, os.W_OK):
                sys.exit(f"{out}: cannot be written; give another file by --out")

    def keep(self, **facts: Any) -> None:
        """Write what is known so far."""
        self._write({**self._complete(facts), "unfinished": True})

    def end(self, **facts: Any) -> None:
        """Write the whole and print it."""
        print(self._write(self._complete(facts)), end="")

    def _complete(self, facts: dict[str, Any]) -> dict[str, Any]:
        return {"command": "python " + " ".join(sys.argv), **facts,
                "machine": machine(), "versions": versions(*self.packages)}

    def _write(self, result: dict[str, Any]) -> str:
        return write(result, self.out)


def write(result: dict[str, Any], out: Path | None) -> str:
    """Return a result as JSON, written to `out` if there is one: the file is the old or the new, never half."""
    text = json.dumps(result, indent=2) + "\n"
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(out.name + ".part")
        part.write_text(text)
        part.replace(out)
    return text


def rounded(found: dict[str, Measured]) -> dict[str, dict[str, float]]:
    """Return commands that were measured, by name, as plain values."""
    return {name: value.rounded() for name, value in found.items()}

"""Cutting with one worker and with several, and what several cores of the machine can give at most.

    python benchmarks/core_speed.py --out cutouts-workers.json

The job of `cutout_speed.py`, three ways in turns: a command of one worker, one of --workers, and --workers commands of
one worker each at the same time, in folders of their own. These share nothing, so how much more they do together than
one alone is what the machine allows (memory, caches and cores that are threads of one). Each way is run with all
sources and with a part of them, as a survey by itself: what the others take is the steady state, without the start.
"""

from __future__ import annotations

import shlex
import shutil
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
from cutout_speed import STAMP_BYTES, make
from measure import CATMORPH, measure
from script import Report, options, say, scratch

PARTS = {"all": "sources.csv", "part": "part.csv"}


def cutting(table: str, run: str, workers: int) -> str:
    """Return the shell's words for reading in and cutting in a new run folder."""
    return shlex.join([*CATMORPH, "cutouts", "-r", "recipe.toml", "-w", run, "-q", "--set", f"catalog.files={table}",
                       "--workers", str(workers)])  # fmt: skip


def ways(table: str, workers: int) -> dict[str, tuple[str, ...]]:
    """Return each way to cut, as words of a command."""
    several = [f"{cutting(table, f'run{number}', 1)} & pids=\"$pids $!\"" for number in range(workers)]
    together = "\n".join([*several, 'for pid in $pids; do wait "$pid" || exit; done'])
    return {
        "one worker": tuple(shlex.split(cutting(table, "run0", 1))),
        f"{workers} workers": tuple(shlex.split(cutting(table, "run0", workers))),
        f"{workers} commands": ("sh", "-c", together),
    }


def round_of_all(folder: Path, workers: int, seconds: dict[str, dict[str, list[float]]]) -> None:
    """Cut each way once and keep the seconds."""
    for part, table in PARTS.items():
        for way, command in ways(table, workers).items():
            for run in folder.glob("run?*"):
                shutil.rmtree(run)
            measured = measure(*command, folder=folder)
            seconds[part].setdefault(way, []).append(measured.seconds)


def result(sources: int, part: int, workers: int, seconds: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Return what the rounds so far have shown."""
    median = {name: {way: statistics.median(values) for way, values in ways.items()} for name, ways in seconds.items()}
    steady = {way: median["all"][way] - median["part"][way] for way in median["all"]}
    return {
        "sources": {"all": sources, "part": part}, "workers": workers, "rounds": len(seconds["all"]["one worker"]),
        "seconds": {**{name: _rounded(ways) for name, ways in median.items()}, "steady": _rounded(steady)},
        "all_seconds": {name: {way: [round(one, 3) for one in values] for way, values in ways.items()}
                        for name, ways in seconds.items()},
        "times_as_fast_as_one_worker": {
            name: {f"{workers} workers": round(ways["one worker"] / ways[f"{workers} workers"], 2),
                   f"{workers} commands": round(workers * ways["one worker"] / ways[f"{workers} commands"], 2)}
            for name, ways in (("whole command", median["all"]), ("steady", steady))
        },
    }  # fmt: skip


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def main() -> None:
    parser = options(__doc__, sources=40_000, part=8000, side=5000, workers=2, rounds=5)
    args = parser.parse_args()
    if not 0 < args.part < args.sources or args.workers < 2:
        parser.error("--part must be fewer than --sources, and --workers 2 at least")
    args.bands, args.compress = 1, False
    report = Report(args.out, "numpy", "astropy", "fitsio", "h5py")
    needed = (args.side**2 * 4 + args.sources * STAMP_BYTES * (args.workers + 1)) / 1e9
    with scratch(args.folder, gigabytes=needed) as folder:
        make(folder, args)
        pd.read_csv(folder / PARTS["all"]).head(args.part).to_csv(folder / PARTS["part"], index=False)
        seconds: dict[str, dict[str, list[float]]] = {part: {} for part in PARTS}
        for number in range(args.rounds):
            round_of_all(folder, args.workers, seconds)
            say(f"round {number + 1} of {args.rounds}")
            report.keep(**result(args.sources, args.part, args.workers, seconds))
    report.end(**result(args.sources, args.part, args.workers, seconds))


if __name__ == "__main__":
    main()

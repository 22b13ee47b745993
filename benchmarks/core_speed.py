"""Cutting with one worker and with several, and what several cores of the machine can give at most.

    python benchmarks/core_speed.py --out cutouts-workers.json

The job of `cutout_speed.py`, three ways in turns: a command of one worker, one of --workers, and --workers commands of
one worker each at the same time, in folders of their own. These share nothing, so how much more they do together than
one alone is what the machine allows (memory, caches and cores that are threads of one). Each way is run with all
sources and with a part of them, as a survey by itself: what the others take is the steady state, without the start.
"""

from __future__ import annotations

import argparse
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


Seconds = dict[str, dict[str, list[float]]]
"""Those of each way to cut, round by round, with all sources and with a part of them."""


def round_of_all(folder: Path, workers: int, seconds: Seconds) -> None:
    """Cut each way once and keep the seconds."""
    for part, table in PARTS.items():
        for way, command in ways(table, workers).items():
            for run in folder.glob("run?*"):
                shutil.rmtree(run)
            seconds[part].setdefault(way, []).append(measure(*command, folder=folder).seconds)


def result(args: argparse.Namespace, seconds: Seconds) -> dict[str, Any]:
    """Return what the rounds so far have shown; ratios are of one round each, since the speed of a machine drifts."""
    steady = {way: [whole - part for whole, part in zip(values, seconds["part"][way], strict=True)]
              for way, values in seconds["all"].items()}  # fmt: skip
    together = {f"{args.workers} workers": 1, f"{args.workers} commands": args.workers}
    return {
        "sources": {"all": args.sources, "part": args.part}, "workers": args.workers,
        "rounds": len(steady["one worker"]),
        "seconds": {name: {way: round(statistics.median(values), 3) for way, values in ways.items()}
                    for name, ways in {**seconds, "steady": steady}.items()},
        "all_seconds": {name: {way: [round(one, 3) for one in values] for way, values in ways.items()}
                        for name, ways in seconds.items()},
        "times_as_fast_as_one_worker": {
            name: {way: round(statistics.median(jobs * alone / one for alone, one
                                                in zip(ways["one worker"], ways[way], strict=True)), 2)
                   for way, jobs in together.items()}
            for name, ways in (("whole command", seconds["all"]), ("steady", steady))
        },
    }  # fmt: skip


def main() -> None:
    parser = options(__doc__, sources=40_000, part=8000, side=5000, workers=2, rounds=9)
    args = parser.parse_args()
    if not 0 < args.part < args.sources or args.workers < 2:
        parser.error("--part must be fewer than --sources, and --workers 2 at least")
    args.bands, args.compress = 1, False
    report = Report(args.out, "numpy", "astropy", "fitsio", "h5py")
    needed = (args.side**2 * 4 + args.sources * STAMP_BYTES * (args.workers + 1)) / 1e9
    with scratch(args.folder, gigabytes=needed) as folder:
        make(folder, args)
        pd.read_csv(folder / PARTS["all"]).head(args.part).to_csv(folder / PARTS["part"], index=False)
        seconds: Seconds = {part: {} for part in PARTS}
        for number in range(args.rounds):
            round_of_all(folder, args.workers, seconds)
            say(f"round {number + 1} of {args.rounds}")
            report.keep(**result(args, seconds))
    report.end(**result(args, seconds))


if __name__ == "__main__":
    main()

"""Scaling: the time and memory of each stage at several numbers of sources.

    python benchmarks/scaling.py --sources 10000 100000 1000000 --out scaling.json
    python benchmarks/scaling.py --stage export --sizes 10000 100000

One 5000 x 5000 mosaic, sources anywhere on it, small stamps (--pixels) and a narrow network, so that a million of them
fit on a disk: 4.1 GB of stamps of 32 x 32 pixels, 26 GB of 80 x 80. The peak is that of anonymous memory over all
processes of a command, looked at fifty times a second. The files of one number of sources are removed before the next.

With --stage only these are measured, and what they need is done before them; where neither cutouts nor classify are
among them, logits at random stand for both, so that a million takes minutes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.io import fits
from logits import put_logits
from measure import CATMORPH, Measured, measure
from script import Report, options, rounded, say, scratch
from survey import create_network, network_recipe, sky, survey_recipe

REST = """\
[stamp]
pixels = {pixels}
[summary]
merger_class = "irregular"
"""
STAGES = {
    "ingest": ("ingest",), "cutouts": ("cutouts", "--workers", "{workers}"),
    "classify": ("classify", "--device", "{device}"), "export": ("export", "--format", "csv"),
    "summarize": ("summarize",), "status": ("status",),
}  # fmt: skip
LOOK_SECONDS = 0.02
"""Between two looks at the memory: at few sources a peak is short."""
LOGITS = "logits at random"
SIDE = 5000
ROW_BYTES = 1000
"""Of a source on disk beside its stamp: survey table, logits, catalog."""


def make(folder: Path, counts: list[int], pixels: int) -> None:
    """Write the mosaic, a catalog and recipe for each count, and a checkpoint."""
    random, wcs = np.random.default_rng(0), sky(SIDE)
    fits.writeto(folder / "mosaic.fits", random.standard_normal((SIDE, SIDE), dtype=np.float32), wcs.to_header())
    for count in counts:
        ra, dec = wcs.pixel_to_world_values(*random.uniform(100, SIDE - 100, (2, count)))
        pd.DataFrame({"id": np.arange(count), "ra": ra, "dec": dec, "size": random.uniform(0.5, 1.5, count)}
                     ).to_csv(folder / f"sources-{count}.csv", index=False)
        survey = survey_recipe("scaling", bands=["F160W"], mosaics="mosaic.fits", table=f"sources-{count}.csv")
        (folder / f"recipe-{count}.toml").write_text(survey + network_recipe() + REST.format(pixels=pixels))
    create_network("resnet-narrow", folder, f"recipe-{counts[0]}.toml")
    os.sync()


def steps(chosen: list[str]) -> list[str]:
    """Return what to do, in order, to measure the stages that are chosen."""
    order = list(STAGES)
    done = order[: 1 + max(map(order.index, chosen))]
    if "classify" in done and not {"cutouts", "classify"} & set(chosen):
        return [LOGITS if stage == "classify" else stage for stage in done if stage != "cutouts"]
    return done


class Scaling:
    """Runs the stages for each number of sources and keeps what they took."""

    def __init__(self, folder: Path, args: argparse.Namespace, report: Report):
        self.folder, self.args, self.report = folder, args, report
        self.found: dict[int, dict[str, Measured]] = {}

    def run(self, count: int) -> None:
        """Measure the stages at one number of sources, in a run folder of its own."""
        recipe, run = f"recipe-{count}.toml", f"run-{count}"
        for step in steps(self.args.stage):
            if step == LOGITS:
                put_logits(self.folder / recipe, self.folder / run)
                say(f"{count:>9,} {step}")
                continue
            command = [part.format(device=self.args.device, workers=self.args.workers) for part in STAGES[step]]
            command += ["-r", recipe, "-w", run, "-q"]
            measured = measure(*CATMORPH, *command, folder=self.folder, every=LOOK_SECONDS)
            say(f"{count:>9,} {step:<9} {measured.rounded()}")
            if step in self.args.stage:
                self.found.setdefault(count, {})[step] = measured
                self.report.keep(**self.result())
        shutil.rmtree(self.folder / run)

    def result(self) -> dict[str, Any]:
        """Return what is measured so far."""
        return {
            "pixels": self.args.pixels,
            "measured": {str(count): rounded(stages) for count, stages in self.found.items()},
            "time_ratio": self._ratios("seconds"), "memory_ratio": self._ratios("peak_anonymous_mb"),
        }  # fmt: skip

    def _ratios(self, name: str) -> dict[str, dict[str, float]]:
        """Return how much larger a value is than at the number of sources before, by stage."""
        return {
            f"{after:,} / {before:,}": {
                stage: round(getattr(value, name) / getattr(self.found[before][stage], name), 2)
                for stage, value in self.found[after].items()
            }
            for before, after in itertools.pairwise(self.found)
        }


def main() -> None:
    parser = options(__doc__, pixels=32, workers=2)
    parser.add_argument("--sources", "--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES), help="default: all")
    parser.add_argument("--device", default="auto", help="for classify")
    args = parser.parse_args()
    counts = sorted(set(args.sources))
    if counts[0] < 1 or args.pixels < 1:
        parser.error("--sources and --pixels must be 1 at least")
    report = Report(args.out, "numpy", "torch", "pyarrow", "h5py")
    stamp = args.pixels**2 * 4 if {"cutouts", "classify"} & set(steps(args.stage)) else 0
    needed = (SIDE**2 * 4 + counts[-1] * (stamp + ROW_BYTES)) / 1e9
    with scratch(args.folder, gigabytes=needed) as folder:
        make(folder, counts, args.pixels)
        scaling = Scaling(folder, args, report)
        for count in counts:
            scaling.run(count)
    report.end(**scaling.result())


if __name__ == "__main__":
    main()

"""Cutting stamps: whole commands, from the shell to their end, beside other tools on the same mosaic.

    python benchmarks/cutout_speed.py --out cutouts.json
    python benchmarks/cutout_speed.py --sources 40000 --peers peers/bin/python --out cutouts-large.json
    python benchmarks/cutout_speed.py --compress --out cutouts-rice.json

One 5000 x 5000 float32 mosaic a band (0.065"/pixel, TAN), sources anywhere on it, stamps of 32 to 120 pixels resampled
to 80 x 80. catmorph reads the catalog in and cuts (`catmorph cutouts` in a new folder); the others start from the same
positions. Everything alternates in one run; seconds are medians of the rounds.

* h5py: the array of stamps, ready in memory, written to one HDF5 file in the same blocks (the limit of the disk).
* fitsio sections: the square of each source is read by a section, as scripts do, without resampling or writing (of
  some, scaled to all).
* cutana: Cutana in an environment of its own (--peers PYTHON: a Python that has cutana and pandas installed).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import fitsio
import h5py
import numpy as np
import pandas as pd
from astropy.io import fits
from measure import CATMORPH, Measured, measure
from script import Report, options, say, scratch
from survey import SCALE, sky, survey_recipe

STAMP_BYTES = 80 * 80 * 4
STAMP = """\
[stamp]
side = "4 radii"
pixels = 80
"""
CUTANA = """\
import json, shutil, sys
import pandas as pd
from cutana import Orchestrator, get_default_config
folder, workers = sys.argv[1], int(sys.argv[2])
rows = pd.read_csv(f"{folder}/sources.csv")
mosaic = json.dumps([f"{folder}/B0.fits"])
pd.DataFrame({"SourceID": rows.id, "RA": rows.ra, "Dec": rows.dec, "fits_file_paths": mosaic,
              "diameter_pixel": (4 * rows["size"] / 0.065).round().astype(int)}
             ).to_csv(f"{folder}/cutana.csv", index=False)
c = get_default_config()
c.source_catalogue, c.output_dir, c.output_format = f"{folder}/cutana.csv", f"{folder}/cutana", "zarr"
c.target_resolution, c.normalisation_method, c.apply_flux_conversion, c.max_workers = 80, "none", False, workers
c.selected_extensions, c.channel_weights = [{"name": "PRIMARY", "ext": "PrimaryHDU"}], {"PRIMARY": [1.0]}
result = Orchestrator(c).run()
assert result["status"] == "completed", result
"""


def make(folder: Path, args: argparse.Namespace) -> None:
    """Write the mosaics, the catalog and the recipe."""
    random, wcs = np.random.default_rng(0), sky(args.side)
    header, names = wcs.to_header(), [f"B{band}" for band in range(args.bands)]
    for name in names:
        pixels = random.normal(0, 1, (args.side, args.side)).astype(np.float32)
        if args.compress:
            unit = fits.CompImageHDU(pixels, header, compression_type="RICE_1", quantize_level=4)
            unit.writeto(folder / f"{name}.fits.fz", overwrite=True)
        else:
            fits.writeto(folder / f"{name}.fits", pixels, header, overwrite=True)
    x, y = random.uniform(100, args.side - 100, (2, args.sources))
    ra, dec = wcs.pixel_to_world_values(x, y)
    radius = random.uniform(8, 30, args.sources)
    pd.DataFrame({"id": [f"s{row}" for row in range(args.sources)], "ra": ra, "dec": dec,
                  "size": radius * SCALE}).to_csv(folder / "sources.csv", index=False)  # fmt: skip
    np.save(folder / "places.npy", np.column_stack([x, y, 4 * radius]))
    mosaics = "{band}.fits.fz" if args.compress else "{band}.fits"
    (folder / "recipe.toml").write_text(survey_recipe("cutout-speed", bands=names, mosaics=mosaics) + STAMP)


class Contest:
    """Runs the ways to cut in turns and keeps their seconds."""

    def __init__(self, folder: Path, args: argparse.Namespace):
        self.folder, self.args = folder, args
        self.seconds: dict[str, list[float]] = {}
        self.measured: dict[str, list[Measured]] = {}

    def command(self, name: str, *command: str) -> None:
        """Measure a command and all that it starts."""
        self.measured.setdefault(name, []).append(measure(*command, folder=self.folder))
        self._note(name, self.measured[name][-1].seconds)

    def catmorph(self, bands: int) -> None:
        """Read in and cut in a new run folder."""
        workers = self.args.workers
        run, name = self.folder / "run", f"catmorph, {workers} workers" + (f", {bands} bands" if bands > 1 else "")
        shutil.rmtree(run, ignore_errors=True)
        chosen = [part for band in range(bands) for part in ("--band", f"B{band}")]
        self.command(name, *CATMORPH, "cutouts", "-r", "recipe.toml", "-w", "run", "-q", "--workers", str(workers),
                     *chosen)

    def h5py(self) -> None:
        """Write the array of stamps and nothing else."""
        stamps = np.zeros((self.args.sources, 1, 80, 80), np.float32)
        stamps[:] = np.random.default_rng(0).normal(size=(1, 1, 80, 80))
        start = time.perf_counter()
        with h5py.File(self.folder / "alone.h5", "w") as file:
            file.create_dataset("stamps", data=stamps, chunks=(32, 1, 80, 80))
        with open(self.folder / "alone.h5", "rb") as file:
            os.fsync(file.fileno())
        self._note("h5py alone", time.perf_counter() - start)

    def sections(self) -> None:
        """Read the square of each source by a fitsio section."""
        places = np.load(self.folder / "places.npy")[: self.args.sections]
        path = next(self.folder.glob("B0.fits*"))
        start = time.perf_counter()
        with fitsio.FITS(str(path)) as file:
            image = file[-1]
            for x, y, side in places:
                image[int(y - side / 2) : int(y + side / 2), int(x - side / 2) : int(x + side / 2)]
        self._note("fitsio sections", (time.perf_counter() - start) * self.args.sources / len(places))

    def _note(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)


def compete(contest: Contest) -> None:
    """Run each way once."""
    args, folder = contest.args, contest.folder
    contest.catmorph(args.bands)
    if args.bands > 1:
        contest.catmorph(1)
    contest.h5py()
    contest.sections()
    if args.peers and not args.compress:
        shutil.rmtree(folder / "cutana", ignore_errors=True)
        contest.command("cutana", str(args.peers), "-c", CUTANA, str(folder), str(args.workers))


def result(contest: Contest) -> dict[str, Any]:
    """Return what the rounds so far have shown."""
    args = contest.args
    median = {key: statistics.median(values) for key, values in contest.seconds.items()}
    ours = f"catmorph, {args.workers} workers" + (f", {args.bands} bands" if args.bands > 1 else "")
    return {
        "sources": args.sources, "bands": args.bands, "rounds": len(contest.seconds[ours]),
        "seconds": {key: round(value, 3) for key, value in median.items()},
        "all_seconds": {key: [round(one, 3) for one in values] for key, values in contest.seconds.items()},
        "stamps_a_second": {key: round(args.sources * (args.bands if key == ours else 1) / value)
                            for key, value in median.items()},
        "ratio_to_catmorph": {key: round(value / median[ours], 2) for key, value in median.items()},
        "processor_seconds": {key: round(statistics.median(one.processor_seconds for one in values), 3)
                              for key, values in contest.measured.items()},
        "peak_anonymous_mb": {key: round(max(one.peak_anonymous_mb for one in values))
                              for key, values in contest.measured.items()},
    }  # fmt: skip


def main() -> None:
    parser = options(__doc__, sources=8000, side=5000, bands=1, workers=2, rounds=5, sections=2000)
    parser.add_argument("--compress", action="store_true", help="RICE-compressed mosaics")
    parser.add_argument("--peers", type=Path, help="a Python that has cutana installed")
    args = parser.parse_args()
    report = Report(args.out, "numpy", "astropy", "fitsio", "h5py")
    needed = (args.side**2 * 4 * args.bands + args.sources * STAMP_BYTES * (2 * args.bands + 3)) / 1e9
    with scratch(args.folder, gigabytes=needed) as folder:
        make(folder, args)
        contest = Contest(folder, args)
        for number in range(args.rounds):
            compete(contest)
            say(f"round {number + 1} of {args.rounds}")
            report.keep(**result(contest))
    report.end(**result(contest))


if __name__ == "__main__":
    main()

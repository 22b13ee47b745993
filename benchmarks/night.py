"""A whole night: a survey in the size of CLASH from nothing to its catalog, again with nothing changed, and with one
mosaic replaced.

    python benchmarks/night.py --folder /large/disk --device openvino --out night.json

25 clusters, 16 bands, 400 mosaics of 2500 x 2500 pixels (10 GB), 8,500 galaxies; a mosaic covers half of its cluster,
every other band the other half, so that there are some 68,500 stamps, as in CLASH, rather than 136,000. The mosaics
hold noise (windows of one that is larger) and galaxies of 64 shapes, each as bright as it happens to be in the band;
the network is untrained `clash-inception`. Takes 14 GB of disk, 10.5 with --direct. Making the mosaics is not part of
the time; they are on the disk before it starts, and in memory too where there is that much.

"nothing changed" is the median of --repeats runs.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.wcs import WCS
from measure import CATMORPH, Measured, measure
from script import Report, options, rounded, say, scratch
from survey import FIELD_COLUMN, create_network, network_recipe, sky, survey_recipe

COVERED = 68_500 / 136_000
"""Share of the (galaxy, band)s of CLASH that have a stamp."""
MARGIN = 100
"""Pixels at the edges of a mosaic without galaxies, and by how much the noise is larger."""
REACH = 15
"""Pixels from a galaxy's centre to its end."""
STAMP_BYTES = 80 * 80 * 4
SUMMARY = """\
[summary]
merger_class = "irregular"
"""


class Sky:
    """Draws mosaics: windows of one image of noise, and galaxies of some shapes."""

    def __init__(self, side: int, shapes: int = 64):
        random = np.random.default_rng(0)
        self.side = side
        self.noise = random.standard_normal((side + MARGIN, side + MARGIN), dtype=np.float32)
        y, x = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
        self.shapes = []
        for scale, ratio, angle in random.uniform((1.5, 0.2, 0), (5, 1, np.pi), (shapes, 3)):
            along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            self.shapes.append(np.exp(-np.hypot(along, across / ratio) / scale).astype(np.float32))

    def mosaic(self, path: Path, places: np.ndarray, wcs: WCS, *, seed: int) -> None:
        """Write a mosaic with galaxies at `places` (n, xy); rows beyond the share that is covered are NaN.

        Mosaics of even `seed` have their lower rows, the others their upper ones.
        """
        random = np.random.default_rng(seed)
        row, column = random.integers(0, MARGIN, 2)
        pixels = self.noise[row : row + self.side, column : column + self.side].copy()
        for number, (x, y) in enumerate(places):
            galaxy = self.shapes[number % len(self.shapes)] * np.float32(random.uniform(2, 200))
            pixels[y - REACH : y + REACH + 1, x - REACH : x + REACH + 1] += galaxy
        rows = MARGIN + round(COVERED * (self.side - 2 * MARGIN))
        pixels[slice(rows, None) if seed % 2 == 0 else slice(0, self.side - rows)] = np.nan
        fits.writeto(path, pixels, wcs.to_header())


def make(folder: Path, args: argparse.Namespace) -> list[str]:
    """Write mosaics, catalog, recipe and checkpoint, down to the disk; return the names of the bands."""
    random, names = np.random.default_rng(0), [f"B{band:02}" for band in range(args.bands)]
    (folder / "mosaics").mkdir()
    drawn, tables = Sky(args.side), []
    for field in range(args.fields):
        wcs, count = sky(args.side, 5.0 + 14 * field, -30.0), len(range(field, args.galaxies, args.fields))
        x, y = random.uniform(MARGIN, args.side - MARGIN, (2, count))
        ra, dec = wcs.pixel_to_world_values(x, y)
        tables.append(pd.DataFrame({"id": [f"c{field}-{row}" for row in range(count)], "field": f"c{field:02}",
                                    "ra": ra, "dec": dec, "size": random.uniform(0.5, 1.5, count)}))  # fmt: skip
        for band, name in enumerate(names):
            drawn.mosaic(folder / "mosaics" / f"c{field:02}_{name}.fits", np.rint([x, y]).astype(int).T, wcs,
                         seed=2 * (field * len(names) + band) + band % 2)  # fmt: skip
    pd.concat(tables).to_csv(folder / "sources.csv", index=False)
    survey = survey_recipe("night", bands=names, mosaics="mosaics/{field}_{band}.fits", field=FIELD_COLUMN)
    (folder / "recipe.toml").write_text(survey + network_recipe("auto") + SUMMARY)
    create_network("clash-inception", folder)
    os.sync()
    say(f"{args.fields * args.bands} mosaics are made")
    return names


class Night:
    """Runs the night and keeps what it took."""

    def __init__(self, folder: Path, args: argparse.Namespace, report: Report):
        self.folder, self.args, self.report = folder, args, report
        self.command = (*CATMORPH, "run", "recipe.toml", "-w", "run", "-q", "--workers", str(args.workers),
                        "--device", args.device, *(["--direct"] if args.direct else []))  # fmt: skip
        self.facts: dict[str, Any] = {"mosaics": args.fields * args.bands, "galaxies": args.galaxies}
        self.found: dict[str, Measured] = {}

    def run(self, bands: list[str]) -> None:
        """Run three times: from nothing, with nothing changed, and with the first mosaic replaced."""
        self._measure("from nothing", "stages")
        self._measure("nothing changed", "stages_with_nothing_changed", repeats=self.args.repeats)
        replace_mosaic(self.folder / "mosaics" / f"c00_{bands[0]}.fits")
        self._measure("one mosaic replaced", "stages_with_one_mosaic_replaced")

    def _measure(self, name: str, stages: str, repeats: int = 1) -> None:
        say(f"{name} ...")
        runs = [measure(*self.command, folder=self.folder) for _ in range(repeats)]
        self.found[name] = median(runs)
        self.facts[stages] = stages_of(self.folder)
        say(f"{name}: {self.found[name].rounded()}")
        for stage, values in self.facts[stages].items():
            say(f"    {stage}: " + ", ".join(f"{key} {value}" for key, value in values.items() if value is not None))
        self.report.keep(**self.result())

    def result(self) -> dict[str, Any]:
        """Return what is measured so far."""
        stages = {name: value for name, value in self.facts.items() if name.startswith("stages")}
        rest = {name: value for name, value in self.facts.items() if name not in stages}
        return {**rest, "measured": rounded(self.found), **stages}


def median(runs: list[Measured]) -> Measured:
    """Return the run that took the median of time, with the largest memory of all."""
    middle = sorted(runs, key=lambda one: one.seconds)[len(runs) // 2]
    return replace(middle, peak_anonymous_mb=max(one.peak_anonymous_mb for one in runs))


def replace_mosaic(path: Path) -> None:
    """Write a mosaic anew, all 1% brighter, as a survey does that calibrates it again."""
    pixels, header = fits.getdata(path, header=True)
    fits.writeto(path, pixels * np.float32(1.01), header, overwrite=True)
    os.sync()


def main() -> None:
    parser = options(__doc__, fields=25, bands=16, galaxies=8500, side=2500, workers=2, repeats=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--direct", action="store_true", help="do not keep stamps")
    args = parser.parse_args()
    if args.side < 3 * MARGIN or min(args.fields, args.bands, args.galaxies, args.repeats) < 1:
        parser.error(f"--side must be {3 * MARGIN} at least, the others 1")
    report = Report(args.out, "numpy", "torch", "h5py")
    stamps = 0 if args.direct else args.galaxies * args.bands * STAMP_BYTES
    needed = (args.fields * args.bands * args.side**2 * 4 + stamps) / 1e9 + 0.5
    with scratch(args.folder, gigabytes=needed) as folder:
        night = Night(folder, args, report)
        night.run(make(folder, args))
    report.end(**night.result())


def stages_of(folder: Path) -> dict[str, dict[str, object]]:
    """Return what run.json says of each stage: seconds, files made and kept, and stamps."""
    stages = json.loads((folder / "run" / "run.json").read_text())["stages"]
    return {stage["stage"]: {name: stage.get(name) for name in ("seconds", "made", "kept", "worked", "counts")}
            for stage in stages}



if __name__ == "__main__":
    main()

"""Scaling: the time and memory of each stage at several numbers of sources.

    python benchmarks/scaling.py --sources 10000 100000 1000000 --out scaling.json

One 5000 x 5000 mosaic, sources anywhere on it, small stamps (--pixels) and a narrow network, so that a million of them
fit on a disk. The peak is that of anonymous memory over all processes of a command.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.wcs import WCS
from measure import CATMORPH, Measured, machine, measure, versions

SCALE = 0.065
RECIPE = """\
name = "scaling"
scheme = "clash"
[catalog]
files = "sources-{sources}.csv"
field = {{ value = "F" }}
id = "id"
ra = {{ column = "ra", unit = "deg" }}
dec = {{ column = "dec", unit = "deg" }}
size = {{ column = "size", unit = "arcsec" }}
[bands]
names = ["F160W"]
[mosaics]
pattern = "mosaic.fits"
[stamp]
pixels = {pixels}
[normalise]
method = "asinh"
[classifiers.net]
checkpoint = "net.safetensors"
precision = "float32"
[summary]
merger_class = "irregular"
"""
STAGES = {
    "ingest": ("ingest",), "cutouts": ("cutouts", "--workers", "2"), "classify": ("classify", "--device", "{device}"),
    "export": ("export", "--format", "csv"), "summarize": ("summarize",), "status": ("status",),
}  # fmt: skip


def make(folder: Path, counts: list[int], pixels: int) -> None:
    """Write the mosaic, a catalog and recipe for each count, and a checkpoint."""
    random, wcs, side = np.random.default_rng(0), WCS(naxis=2), 5000
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [64.0, -24.0], [side / 2] * 2, [-SCALE / 3600, SCALE / 3600]
    fits.writeto(folder / "mosaic.fits", random.normal(0, 1, (side, side)).astype(np.float32), wcs.to_header())
    for count in counts:
        ra, dec = wcs.pixel_to_world_values(*random.uniform(100, side - 100, (2, count)))
        pd.DataFrame({"id": np.arange(count), "ra": ra, "dec": dec, "size": random.uniform(0.5, 1.5, count)}
                     ).to_csv(folder / f"sources-{count}.csv", index=False)
        (folder / f"recipe-{count}.toml").write_text(RECIPE.format(sources=count, pixels=pixels))
    create = ("models", "create", "resnet-narrow", "-r", f"recipe-{counts[0]}.toml", "--output")
    measure(*CATMORPH, *create, "net.safetensors", folder=folder)


def run(folder: Path, count: int, device: str) -> dict[str, Measured]:
    """Measure each stage of one number of sources, in a run folder of its own."""
    base = ("-r", f"recipe-{count}.toml", "-w", f"run-{count}", "-q")
    found = {}
    for stage, command in STAGES.items():
        found[stage] = measure(*CATMORPH, *(part.format(device=device) for part in command), *base, folder=folder)
        print(f"{count:>9,} {stage:<9} {found[stage].rounded()}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--pixels", type=int, default=32, help="of a stamp")
    parser.add_argument("--device", default="auto", help="for classify")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a temporary folder)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    counts = sorted(args.sources)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        make(Path(name), counts, args.pixels)
        found = {count: run(Path(name), count, args.device) for count in counts}
    result = {
        "command": "python " + " ".join(sys.argv), "pixels": args.pixels,
        "measured": {str(count): {stage: value.rounded() for stage, value in stages.items()}
                     for count, stages in found.items()},
        "time_ratio": {
            f"{after:,} / {before:,}": {stage: round(found[after][stage].seconds / found[before][stage].seconds, 2)
                                        for stage in STAGES}
            for before, after in itertools.pairwise(counts)
        },
        "machine": machine(), "versions": versions("numpy", "torch", "pyarrow", "h5py"),
    }  # fmt: skip
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()

"""A whole night: a survey in the size of CLASH from nothing to its catalog, again with nothing changed, and with one
mosaic replaced.

    python benchmarks/night.py --folder /large/disk --device openvino --out night.json

25 clusters, 16 bands, 400 mosaics of 2500 x 2500 pixels (10 GB), 8,500 galaxies; half of the bands cover all of a
cluster and half of them its middle, as in CLASH, so that there are some 68,500 stamps rather than 136,000. The mosaics
hold noise and round sources; the network is untrained `clash-inception`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.wcs import WCS
from measure import CATMORPH, machine, measure, versions

SCALE = 0.065
COVERED = 68_500 / 136_000
"""Share of the (galaxy, band)s of CLASH that have a stamp."""
RECIPE = """\
name = "night"
scheme = "clash"
[catalog]
files = "sources.csv"
field = {{ column = "field" }}
id = "id"
ra = {{ column = "ra", unit = "deg" }}
dec = {{ column = "dec", unit = "deg" }}
size = {{ column = "size", unit = "arcsec" }}
[bands]
names = {bands}
[mosaics]
pattern = "mosaics/{{field}}_{{band}}.fits"
[normalise]
method = "asinh"
[classifiers.net]
checkpoint = "net.safetensors"
precision = "auto"
[summary]
merger_class = "irregular"
"""


def make(folder: Path, fields: int, bands: int, galaxies: int, side: int) -> list[str]:
    """Write mosaics, catalog, recipe and checkpoint; return the names of the bands."""
    random, names = np.random.default_rng(0), [f"B{band:02}" for band in range(bands)]
    (folder / "mosaics").mkdir()
    noise = random.normal(0, 1, (side + 100, side + 100)).astype(np.float32)
    sources = np.exp(-np.hypot(*np.mgrid[-15:16, -15:16]) / 3).astype(np.float32)
    tables = []
    for number in range(fields):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval, wcs.wcs.crpix = [5.0 + 14 * number, -30.0], [side / 2] * 2
        wcs.wcs.cdelt = [-SCALE / 3600, SCALE / 3600]
        x, y = random.uniform(100, side - 100, (2, galaxies // fields))
        ra, dec = wcs.pixel_to_world_values(x, y)
        tables.append(pd.DataFrame({"id": [f"c{number}-{row}" for row in range(len(x))], "field": f"c{number:02}",
                                    "ra": ra, "dec": dec, "size": random.uniform(0.5, 1.5, len(x))}))  # fmt: skip
        places = np.rint([x, y]).astype(int).T
        for band, name in enumerate(names):
            mosaic(folder / "mosaics" / f"c{number:02}_{name}.fits", noise, sources, places, wcs,
                   seed=number * bands + band, whole=band < bands * (2 * COVERED - 1))
    pd.concat(tables).to_csv(folder / "sources.csv", index=False)
    (folder / "recipe.toml").write_text(RECIPE.format(bands=json.dumps(names)))
    create = ("models", "create", "clash-inception", "-r", "recipe.toml", "--output", "net.safetensors")
    measure(*CATMORPH, *create, folder=folder)
    return names


def mosaic(path: Path, noise: np.ndarray, source: np.ndarray, places: np.ndarray, wcs: WCS, *, seed: int,
           whole: bool) -> None:  # fmt: skip
    """Write a mosaic: a window of the noise and the sources; without data in half of it unless `whole`."""
    random, side = np.random.default_rng(seed), len(noise) - 100
    row, column = random.integers(0, 100, 2)
    pixels = noise[row : row + side, column : column + side].copy()
    for x, y in places:
        pixels[y - 15 : y + 16, x - 15 : x + 16] += random.uniform(2, 200) * source
    if not whole:
        pixels[: side // 2] = np.nan
    fits.writeto(path, pixels, wcs.to_header())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("fields", 25), ("bands", 16), ("galaxies", 8500), ("side", 2500)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a temporary folder)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        bands = make(folder, args.fields, args.bands, args.galaxies, args.side)
        command = (*CATMORPH, "run", "recipe.toml", "-w", "run", "-q", "--workers", str(args.workers),
                   "--device", args.device)  # fmt: skip
        found = {"from nothing": measure(*command, folder=folder)}
        stages = stages_of(folder)
        found["nothing changed"] = measure(*command, folder=folder)
        path = folder / "mosaics" / f"c00_{bands[0]}.fits"
        with fits.open(path, mode="update") as file:
            file[0].data[:] *= np.float32(1.01)
        found["one mosaic replaced"] = measure(*command, folder=folder)
        replaced = stages_of(folder)
    result = {
        "command": "python " + " ".join(sys.argv), "mosaics": args.fields * args.bands, "galaxies": args.galaxies,
        "measured": {key: value.rounded() for key, value in found.items()},
        "stages": stages, "stages_with_one_mosaic_replaced": replaced,
        "machine": machine(), "versions": versions("numpy", "torch", "h5py"),
    }  # fmt: skip
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text)


def stages_of(folder: Path) -> dict[str, dict[str, object]]:
    """Return what run.json says of each stage: seconds, files made and kept, and stamps."""
    stages = json.loads((folder / "run" / "run.json").read_text())["stages"]
    return {stage["stage"]: {name: stage.get(name) for name in ("seconds", "made", "kept", "worked", "counts")}
            for stage in stages}


if __name__ == "__main__":
    main()

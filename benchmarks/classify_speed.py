"""Classifying: `clash-inception` from shards to Parquet, as whole commands, beside a plain loop and the matrix rate.

    python benchmarks/classify_speed.py --out classify.json

* plain loop: a script of its own that reads batches of a shard, normalises them as the recipe does, runs the network
  as torch runs it by default, and writes one Parquet file.
* catmorph, cpu and openvino: `catmorph classify --device ...`.
* matrix rate: the best of some products of float32 matrices, 2048 x 2048; a stamp takes 1.12e9 operations.

All alternate in one run; seconds are medians of the rounds. The seconds of a command that finds everything done are
those of its start: imports, checkpoint, comparing with the ledger.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from astropy.io import fits
from astropy.wcs import WCS
from measure import CATMORPH, machine, measure, versions

OPERATIONS_A_STAMP = 1.12e9
RECIPE = """\
name = "speed"
scheme = "clash"
[catalog]
files = "sources.csv"
field = { value = "F" }
id = "id"
ra = { column = "ra", unit = "deg" }
dec = { column = "dec", unit = "deg" }
size = { column = "size", unit = "arcsec" }
[bands]
names = ["F160W"]
[mosaics]
pattern = "mosaic.fits"
[normalise]
method = "asinh"
[classifiers.net]
checkpoint = "net.safetensors"
precision = "float32"
"""
PLAIN = """\
import glob, sys
import h5py, numpy as np, pandas as pd, torch
from catmorph.models.checkpoint import build_from, load_checkpoint
from catmorph.recipe import load_recipe
from catmorph.stamps.normalise import normalise
network = build_from(load_checkpoint("net.safetensors")).eval()
section = load_recipe("recipe.toml").normalise
logits = []
with torch.no_grad():
    for path in sorted(glob.glob("run/stamps/F160W/*.h5")):
        with h5py.File(path) as file:
            for start in range(0, len(file["stamps"]), 64):
                stamps = normalise(file["stamps"][start : start + 64], section)
                logits.append(network(torch.from_numpy(stamps)).numpy())
pd.DataFrame(np.concatenate(logits)).rename(columns=str).to_parquet("plain.parquet")
"""


def make(folder: Path, sources: int) -> None:
    """Write a mosaic with a round source at each position, the catalog, the recipe, a checkpoint and the stamps."""
    random, wcs, side = np.random.default_rng(0), WCS(naxis=2), 4000
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [64.0, -24.0], [side / 2] * 2, [-0.065 / 3600, 0.065 / 3600]
    pixels = random.normal(0, 1, (side, side)).astype(np.float32)
    x, y = random.uniform(100, side - 100, (2, sources))
    grid = np.mgrid[-20:21, -20:21]
    for column, row in zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True):
        source = random.uniform(5, 500) * np.exp(-np.hypot(*grid) / random.uniform(1, 6))
        pixels[row - 20 : row + 21, column - 20 : column + 21] += source.astype(np.float32)
    fits.writeto(folder / "mosaic.fits", pixels, wcs.to_header())
    ra, dec = wcs.pixel_to_world_values(x, y)
    pd.DataFrame({"id": np.arange(sources), "ra": ra, "dec": dec, "size": random.uniform(0.5, 1.5, sources)}
                 ).to_csv(folder / "sources.csv", index=False)
    (folder / "recipe.toml").write_text(RECIPE)
    create = ("models", "create", "clash-inception", "-r", "recipe.toml", "--output", "net.safetensors")
    for command in (create, ("cutouts", "-r", "recipe.toml", "-w", "run", "-q")):
        subprocess.run([*CATMORPH, *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def matrix_rate() -> float:
    """Return operations a second of products of float32 matrices, the best of ten."""
    left, right = torch.rand(2, 2048, 2048)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds)


def agreement(folder: Path) -> dict[str, float]:
    """Compare the logits of the ways: the largest difference, in units of the largest logit."""
    found = {}
    plain = pd.read_parquet(folder / "plain.parquet").to_numpy()
    for device in ("cpu", "openvino"):
        if (folder / device).exists():
            names = sorted((folder / device / "net" / "F160W").glob("*.parquet"))
            ours = np.concatenate([pq.read_table(name).to_pandas().iloc[:, 4:].dropna().to_numpy() for name in names])
            found[device] = float(np.abs(ours - plain).max() / np.abs(plain).max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", nargs="+", default=["cpu", "openvino"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    rates = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, args.sources)
        for _ in range(args.rounds):
            rates.append(matrix_rate())
            seconds.setdefault("plain loop", []).append(measure(sys.executable, "-c", PLAIN, folder=folder).seconds)
            for device in args.devices:
                shutil.rmtree(folder / "run" / "logits", ignore_errors=True)
                command = (*CATMORPH, "classify", "-r", "recipe.toml", "-w", "run", "-q", "--device", device)
                seconds.setdefault(f"catmorph, {device}", []).append(measure(*command, folder=folder).seconds)
                seconds.setdefault(f"start, {device}", []).append(measure(*command, folder=folder).seconds)
                shutil.rmtree(folder / device, ignore_errors=True)
                shutil.copytree(folder / "run" / "logits", folder / device)
        alike = agreement(folder)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    rate = statistics.median(rates)
    steady = {device: args.sources / (median[f"catmorph, {device}"] - median[f"start, {device}"])
              for device in args.devices}
    result = {
        "command": "python " + " ".join(sys.argv), "sources": args.sources, "rounds": args.rounds,
        "seconds": {key: round(value, 2) for key, value in median.items()},
        "all_seconds": {key: [round(one, 2) for one in values] for key, values in seconds.items()},
        "stamps_a_second": {key: round(args.sources / value, 1) for key, value in median.items()
                            if not key.startswith("start")},
        "stamps_a_second_after_the_start": {key: round(value, 1) for key, value in steady.items()},
        "ratio_to_plain_loop": {key: round(median["plain loop"] / value, 2) for key, value in median.items()
                                if key.startswith("catmorph")},
        "matrix_rate_gflops": round(rate / 1e9, 1),
        "share_of_matrix_rate": {key: round(value * OPERATIONS_A_STAMP / rate, 3) for key, value in steady.items()},
        "largest_difference_of_logits": alike, "machine": machine(),
        "versions": versions("torch", "numpy", "h5py", "openvino"),
    }  # fmt: skip
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()

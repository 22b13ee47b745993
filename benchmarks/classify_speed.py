"""Classifying: `clash-inception` from shards to Parquet, as whole commands, beside a plain loop and the matrix rate.

    python benchmarks/classify_speed.py --out classify.json

* plain loop: a script of its own that reads batches of a shard, normalises them as the recipe does, runs the network
  as torch runs it by default (float32), and writes one Parquet file.
* catmorph, cpu and openvino: `catmorph classify --device ... --precision ...` (default: auto, bfloat16 where the
  processor has it).
* matrix rate: products of matrices, 2048 x 2048, in the precision of the command, the median over two seconds before
  and after each; a stamp takes 1.12e9 operations.

All alternate in one run; seconds are medians of the rounds. The start of a command (imports, checkpoint, compiling) is
what it takes with 64 stamps.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from astropy.io import fits
from measure import CATMORPH, measure
from script import Report, options, say, scratch
from survey import create_network, network_recipe, sky, survey_recipe

from catmorph.models.device import resolve_precision

OPERATIONS_A_STAMP = 1.12e9
MOSAIC_SIDE = 4000
FEW = 64
"""Sources of the survey that shows the start, or half of all."""
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


def few_of(sources: int) -> int:
    """Return how many sources show the start."""
    return min(FEW, sources // 2)


def make(folder: Path, sources: int) -> None:
    """Write a mosaic with a round source at each position, the catalog, the recipe, a checkpoint and the stamps."""
    random, wcs, side = np.random.default_rng(0), sky(MOSAIC_SIDE), MOSAIC_SIDE
    pixels = random.normal(0, 1, (side, side)).astype(np.float32)
    x, y = random.uniform(100, side - 100, (2, sources))
    grid = np.mgrid[-20:21, -20:21]
    for column, row in zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True):
        source = random.uniform(5, 500) * np.exp(-np.hypot(*grid) / random.uniform(1, 6))
        pixels[row - 20 : row + 21, column - 20 : column + 21] += source.astype(np.float32)
    fits.writeto(folder / "mosaic.fits", pixels, wcs.to_header())
    ra, dec = wcs.pixel_to_world_values(x, y)
    table = pd.DataFrame({"id": np.arange(sources), "ra": ra, "dec": dec, "size": random.uniform(0.5, 1.5, sources)})
    for name, count in (("recipe", sources), ("few", few_of(sources))):
        table[:count].to_csv(folder / f"{name}.csv", index=False)
        survey = survey_recipe("speed", bands=["F160W"], mosaics="mosaic.fits", table=f"{name}.csv")
        (folder / f"{name}.toml").write_text(survey + network_recipe())
    create_network("clash-inception", folder)
    for name, run in (("recipe", "run"), ("few", "few")):
        measure(*CATMORPH, "cutouts", "-r", f"{name}.toml", "-w", run, "-q", folder=folder)


def matrix_rates(precision: str) -> list[float]:
    """Return operations a second of products of matrices, over two seconds."""
    left, right = torch.rand(2, 2048, 2048).to(getattr(torch, precision))
    rates, end = [], time.perf_counter() + 2
    while (start := time.perf_counter()) < end:
        left @ right
        rates.append(2 * 2048**3 / (time.perf_counter() - start))
    return rates


def agreement(folder: Path, devices: list[str]) -> dict[str, float]:
    """Compare the logits of the ways: the largest difference, in units of the largest logit."""
    found = {}
    plain = pd.read_parquet(folder / "plain.parquet").to_numpy()
    for device in devices:
        names = sorted((folder / device / "net" / "F160W").glob("*.parquet"))
        ours = np.concatenate([pq.read_table(name).to_pandas().iloc[:, 4:].dropna().to_numpy() for name in names])
        found[device] = float(np.abs(ours - plain).max() / np.abs(plain).max())
    return found


class Contest:
    """Runs the ways to classify in turns and keeps their seconds."""

    def __init__(self, folder: Path, args: argparse.Namespace):
        self.folder, self.args = folder, args
        self.seconds: dict[str, list[float]] = {}
        self.precisions = {device: resolve_precision(args.precision, device) for device in args.devices}
        self.rates: dict[str, list[float]] = {device: [] for device in args.devices}

    def compete(self) -> None:
        """Run each way once."""
        self._command("plain loop", sys.executable, "-c", PLAIN)
        for device, precision in self.precisions.items():
            how = ("-q", "--device", device, "--precision", precision)
            for recipe, run in (("few", "few"), ("recipe", "run")):
                shutil.rmtree(self.folder / run / "logits", ignore_errors=True)
                name = "start" if run == "few" else "catmorph"
                self.rates[device] += matrix_rates(precision)
                self._command(f"{name}, {device}", *CATMORPH, "classify", "-r", f"{recipe}.toml", "-w", run, *how)
                self.rates[device] += matrix_rates(precision)
            shutil.rmtree(self.folder / device, ignore_errors=True)
            shutil.copytree(self.folder / "run" / "logits", self.folder / device)

    def _command(self, name: str, *command: str) -> None:
        self.seconds.setdefault(name, []).append(measure(*command, folder=self.folder).seconds)

    def result(self) -> dict[str, Any]:
        """Return what the rounds so far have shown."""
        args, rates = self.args, {device: statistics.median(values) for device, values in self.rates.items()}
        median = {key: statistics.median(values) for key, values in self.seconds.items()}
        more = args.sources - few_of(args.sources)
        steady = {device: more / (median[f"catmorph, {device}"] - median[f"start, {device}"])
                  for device in args.devices}
        return {
            "sources": args.sources, "rounds": len(self.seconds["plain loop"]), "precision": self.precisions,
            "seconds": {key: round(value, 2) for key, value in median.items()},
            "all_seconds": {key: [round(one, 2) for one in values] for key, values in self.seconds.items()},
            "stamps_a_second": {key: round(args.sources / value, 1) for key, value in median.items()
                                if not key.startswith("start")},
            "stamps_a_second_after_the_start": {key: round(value, 1) for key, value in steady.items()},
            "ratio_to_plain_loop": {key: round(median["plain loop"] / value, 2) for key, value in median.items()
                                    if key.startswith("catmorph")},
            "matrix_rate_gflops": {device: round(rate / 1e9, 1) for device, rate in rates.items()},
            "share_of_matrix_rate": {key: round(value * OPERATIONS_A_STAMP / rates[key], 3)
                                     for key, value in steady.items()},
            "largest_difference_of_logits": agreement(self.folder, args.devices),
        }  # fmt: skip


def main() -> None:
    parser = options(__doc__, sources=6000, rounds=3)
    parser.add_argument("--devices", nargs="+", default=["cpu", *(["openvino"] if find_spec("openvino") else [])])
    parser.add_argument("--precision", default="auto", help="default: auto")
    args = parser.parse_args()
    report = Report(args.out, "torch", "numpy", "h5py", "openvino")
    needed = (MOSAIC_SIDE**2 + args.sources * 80 * 80) * 4 / 1e9
    with scratch(args.folder, gigabytes=needed) as folder:
        make(folder, args.sources)
        contest = Contest(folder, args)
        for number in range(args.rounds):
            contest.compete()
            say(f"round {number + 1} of {args.rounds}")
            report.keep(**contest.result())
        result = contest.result()
    report.end(**result)


if __name__ == "__main__":
    main()

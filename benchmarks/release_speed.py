"""Releasing: `catmorph export` and `summarize` of many galaxies in sixteen bands, beside pandas.

    python benchmarks/release_speed.py --out release.json

25 fields; the survey table is read in by `catmorph ingest`, and logits at random are put where `catmorph classify`
would put them. Each export begins with nothing of a release there; `summarize` comes after one, as in `catmorph run`,
and once without. pandas: a script that reads the same logits, takes the softmax, turns the long table into one row a
galaxy by `pivot` and writes it by `to_csv`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from logits import put_logits
from measure import CATMORPH, Measured, measure
from script import Report, options, rounded, say, scratch
from survey import FIELD_COLUMN, create_network, network_recipe, survey_recipe

FIELDS = 25
BYTES = 300
"""Of a (galaxy, band) on disk, at most: logits, and the catalog in CSV twice and in Parquet."""
RELEASE = """\
[release]
name = "release"
[summary]
merger_class = "irregular"
"""
PANDAS = """\
import glob, os
import numpy as np, pandas as pd
long = []
for path in sorted(glob.glob("run/logits/net/*/*.parquet")):
    rows = pd.read_parquet(path)
    logits = rows.iloc[:, 4:].to_numpy()
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    table = pd.DataFrame(powers / powers.sum(axis=1, keepdims=True), columns=rows.columns[4:])
    table["id"], table["band"] = rows["id"], path.split("/")[-2]
    long.append(table)
wide = pd.concat(long, ignore_index=True).pivot(index="id", columns="band")
wide.columns = [f"{band}_{name}" for name, band in wide.columns]
sources = pd.read_parquet("sources.parquet").astype({"id": str}).set_index("id")
sources.join(wide).to_csv("pandas.csv", float_format="%.4f")
"""


def make(folder: Path, galaxies: int, bands: int) -> None:
    """Write the survey table, recipe and checkpoint."""
    random = np.random.default_rng(0)
    field = np.arange(galaxies) % FIELDS
    pd.DataFrame({
        "id": np.arange(galaxies), "field": [f"f{number:02}" for number in field],
        "ra": 10 + 10 * field + random.uniform(0, 2, galaxies), "dec": random.uniform(-1, 1, galaxies),
        "size": random.uniform(0.5, 2, galaxies),
    }).to_parquet(folder / "sources.parquet", index=False)  # fmt: skip
    names = [f"F{100 + 25 * band}W" for band in range(bands)]
    survey = survey_recipe("speed", bands=names, mosaics="{field}_{band}.fits", table="sources.parquet",
                           field=FIELD_COLUMN)  # fmt: skip
    (folder / "recipe.toml").write_text(survey + network_recipe() + RELEASE)
    create_network("clash-inception-narrow", folder)


class Release:
    """Runs the commands one after the other and keeps what they took."""

    def __init__(self, folder: Path, args: argparse.Namespace, report: Report):
        self.folder, self.args, self.report = folder, args, report
        self.found: dict[str, Measured] = {}
        self.sizes: dict[str, int] = {}

    def run(self) -> None:
        """Measure everything."""
        self._catmorph("ingest", "ingest")
        put_logits(self.folder / "recipe.toml", self.folder / "run")
        say("logits at random are there")
        csv, parquet = ("--format", "csv"), ("--format", "parquet")
        for name, formats in (("csv", csv), ("parquet", parquet), ("both", (*csv, *parquet))):
            self._forget()
            self._catmorph(f"export, {name}", "export", *formats)
        self._catmorph("summarize", "summarize")
        self._catmorph("export, nothing changed", "export", *csv, *parquet)
        (self.folder / "run" / "ledger" / "counts.json").unlink()
        self._catmorph("summarize, without an export", "summarize")
        released = sorted((self.folder / "run" / "release").glob("release.*"))
        self.sizes = {path.name: path.stat().st_size for path in released}
        if not self.args.without_pandas:
            self._command("pandas", sys.executable, "-c", PANDAS)
            self.sizes["pandas.csv"] = (self.folder / "pandas.csv").stat().st_size

    def _forget(self) -> None:
        """Remove the release and what is remembered of it, so that the next export has everything to do."""
        shutil.rmtree(self.folder / "run" / "release", ignore_errors=True)
        for name in ("export", "counts"):
            (self.folder / "run" / "ledger" / f"{name}.json").unlink(missing_ok=True)

    def _catmorph(self, name: str, *command: str) -> None:
        self._command(name, *CATMORPH, *command, "-r", "recipe.toml", "-w", "run", "-q")

    def _command(self, name: str, *command: str) -> None:
        self.found[name] = measure(*command, folder=self.folder)
        say(f"{name}: {self.found[name].rounded()}")
        self.report.keep(**self.result())

    def result(self) -> dict[str, Any]:
        """Return what is measured so far."""
        return {"galaxies": self.args.galaxies, "bands": self.args.bands, "measured": rounded(self.found),
                "bytes": self.sizes}  # fmt: skip


def main() -> None:
    parser = options(__doc__, galaxies=1_000_000, bands=16)
    parser.add_argument("--without-pandas", action="store_true", help="pandas takes much memory")
    args = parser.parse_args()
    report = Report(args.out, "numpy", "pandas", "pyarrow")
    with scratch(args.folder, gigabytes=args.galaxies * args.bands * BYTES / 1e9) as folder:
        make(folder, args.galaxies, args.bands)
        release = Release(folder, args, report)
        release.run()
    report.end(**release.result())


if __name__ == "__main__":
    main()

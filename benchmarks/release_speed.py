"""Releasing: `catmorph export` and `summarize` of many galaxies in sixteen bands, beside pandas.

    python benchmarks/release_speed.py --out release.json

25 fields; the survey table is read in by `catmorph ingest`, and logits at random are put where `catmorph classify`
would put them. pandas: a script that reads the same logits, takes the softmax, turns the long table into one row a
galaxy by `pivot` and writes it by `to_csv`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from measure import CATMORPH, machine, measure, versions

from catmorph.api import open_run
from catmorph.inference.identity import possible_fingerprints
from catmorph.inference.members import all_members, network_of
from catmorph.inference.tasks import logits_tasks
from catmorph.ledger import Parts
from catmorph.schemes import load_scheme
from catmorph.stamps.build import recipe_parts
from catmorph.workspace import RunFolder, read_row_group

FIELDS = 25
RECIPE = """\
name = "speed"
scheme = "clash"
[catalog]
files = "sources.parquet"
field = {{ column = "field" }}
id = "id"
ra = {{ column = "ra", unit = "deg" }}
dec = {{ column = "dec", unit = "deg" }}
size = {{ column = "size", unit = "arcsec" }}
[bands]
names = {bands}
[mosaics]
pattern = "{{field}}_{{band}}.fits"
[classifiers.net]
checkpoint = "net.safetensors"
precision = "float32"
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
    (folder / "recipe.toml").write_text(RECIPE.format(bands=json.dumps(names)))
    create = ("models", "create", "clash-inception-narrow", "-r", "recipe.toml", "--output", "net.safetensors")
    measure(*CATMORPH, *create, folder=folder)


def put_logits(run: RunFolder) -> None:
    """Put logits at random where those of the network would be, as if stamps had been cut and not kept."""
    random = np.random.default_rng(1)
    (member,) = all_members(run.recipe)
    fingerprint = possible_fingerprints(network_of(run, member), batch=256)[0]
    names = load_scheme(run.recipe.classifier_scheme("net")).class_names
    for chunk in run.chunks():
        ids = read_row_group(run.sources_path(), chunk.group)["id"]
        for view in run.recipe.all_views:
            facts = {"sources": len(ids), "stamps": len(ids), "flags": {}, "blocked": 0, "failures": []}
            run.ledger.note(run.shard_path(view, chunk), Parts(recipe_parts(run.recipe, chunk)), **facts)
            (task,) = logits_tasks(run, member, [view], fingerprint, [chunk])
            logits = random.normal(0, 2, (len(names), len(ids))).astype(np.float32)
            zeros = np.zeros(len(ids), np.float32)
            table = {"id": ids, "flags": zeros.astype(np.uint32), "bad_fraction": zeros, "signal": zeros + 10,
                     **dict(zip(names, logits, strict=True))}
            task.product.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(table), task.product)
            run.ledger.write(task.product, task.parts, classified=len(ids), blocked=0, flags={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galaxies", type=int, default=1_000_000)
    parser.add_argument("--bands", type=int, default=16)
    parser.add_argument("--without-pandas", action="store_true", help="pandas takes much memory")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a temporary folder)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        make(folder, args.galaxies, args.bands)
        base = ("-r", "recipe.toml", "-w", "run", "-q")
        found = {"ingest": measure(*CATMORPH, "ingest", *base, folder=folder)}
        put_logits(open_run(folder / "recipe.toml", folder / "run"))
        for kind in ("csv", "parquet"):
            found[f"export, {kind}"] = measure(*CATMORPH, "export", *base, "--format", kind, folder=folder)
        both = ("--format", "csv", "--format", "parquet")
        found["export, both"] = measure(*CATMORPH, "export", *base, *both, folder=folder)
        found["summarize"] = measure(*CATMORPH, "summarize", *base, folder=folder)
        sizes = {path.name: path.stat().st_size for path in sorted((folder / "run" / "release").glob("release.*"))}
        if not args.without_pandas:
            found["pandas"] = measure(sys.executable, "-c", PANDAS, folder=folder)
            sizes["pandas.csv"] = (folder / "pandas.csv").stat().st_size
        shutil.rmtree(folder / "run")
    result = {
        "command": "python " + " ".join(sys.argv), "galaxies": args.galaxies, "bands": args.bands,
        "measured": {key: value.rounded() for key, value in found.items()},
        "bytes": sizes, "machine": machine(), "versions": versions("numpy", "pandas", "pyarrow"),
    }  # fmt: skip
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()

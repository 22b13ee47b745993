"""How well a yes/no question is answered in a released catalog, on the galaxies that no member was trained on.

    catmorph run galaxyzoo-odd-spirals.toml
    python benchmarks/real_images.py runs/galaxyzoo-odd-spirals/release/catalog.csv galaxyzoo/labels.csv \\
        checkpoints/odd-spiral-1.split.csv --out result.json

The catalog has what `catmorph evaluate` does not look at: the mean of an ensemble, over rotations and mirror images.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from catmorph.evaluation.classification import question_report

SUBSETS = ("validation", "test")


def results(catalog: pd.DataFrame, labels: pd.DataFrame, split: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return the report of each subset: the columns of Table 2 of Dominguez Sanchez et al. (2019), with intervals."""
    joined = split.merge(labels, on="id", validate="one_to_one").merge(catalog, on="id", validate="one_to_one")
    if len(joined) != len(split):
        raise SystemExit(f"{len(split) - len(joined)} of {len(split)} stamps are not in labels and catalog")
    empty = int(joined[column].isna().sum())
    if empty:
        raise SystemExit(f"{empty} stamps have no probability in column {column!r}")
    label = labels.columns.drop("id")[0]
    return {
        name: question_report(part[label].to_numpy() > 0.5, part[column].to_numpy() > 0.5)
        for name, part in joined.groupby("subset") if name in SUBSETS
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalog", type=Path, help="released catalog (CSV)")
    parser.add_argument("labels", type=Path, help="label table with the columns id and the question's (0 or 1)")
    parser.add_argument("split", type=Path, help="split file beside the checkpoint")
    parser.add_argument("--column", default="rgb_odd_spiral", help="the probability's column in the catalog")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    catalog, labels, split = (pd.read_csv(path, dtype={"id": str}) for path in
                              (options.catalog, options.labels, options.split))  # fmt: skip
    result = {
        "versions": {"catmorph": version("catmorph"), "python": platform.python_version()},
        **results(catalog[["id", options.column]], labels, split[["id", "subset"]], options.column),
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()

"""How well a yes/no question is answered in a released catalog, on the galaxies that no member was trained on.

    catmorph run galaxyzoo-odd-spirals.toml
    python benchmarks/real_images.py runs/galaxyzoo-odd-spirals/release/catalog.csv \\
        checkpoints/odd-spiral-1.split.csv --out result.json

The catalog has what `catmorph evaluate` does not look at: the mean of an ensemble, over rotations and mirror images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from measure import versions
from script import write

from catmorph.evaluation.classification import question_report

SUBSETS = ("validation", "test")


def results(catalog: pd.DataFrame, split: pd.DataFrame, column: str, yes: str, subsets: list[str]) -> dict[str, Any]:
    """Return the report of each subset: the columns of Table 2 of Dominguez Sanchez et al. (2019), with intervals."""
    split = split[split["subset"].isin(subsets)]
    joined = split.merge(catalog, on="id", validate="one_to_one")
    if len(joined) != len(split):
        raise SystemExit(f"{len(split) - len(joined)} of {len(split)} stamps of the split are not in the catalog")
    empty = int(joined[column].isna().sum())
    if empty:
        raise SystemExit(f"{empty} stamps have no probability in column {column!r}")
    joined["human"] = joined.eval(yes)
    return {
        str(name): question_report(part["human"].to_numpy(bool), part[column].to_numpy() > 0.5)
        for name, part in joined.groupby("subset")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalog", type=Path, help="released catalog (CSV)")
    parser.add_argument("split", type=Path, help="split file beside the checkpoint")
    parser.add_argument("--column", default="rgb_odd_spiral", help="the probability's column in the catalog")
    parser.add_argument("--yes", default="folder == 'odd_spirals'", help="where people say yes, on catalog columns")
    parser.add_argument("--subset", action="append", choices=SUBSETS, help="default: both")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    catalog, split = (pd.read_csv(path, dtype={"id": str}) for path in (options.catalog, options.split))
    result = {
        "versions": versions(),
        **results(catalog, split[["id", "subset"]], options.column, options.yes,
                  options.subset or list(SUBSETS)),
    }
    print(write(result, options.out), end="")


if __name__ == "__main__":
    main()

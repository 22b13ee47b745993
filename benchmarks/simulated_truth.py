"""How far a network is from the true probabilities of simulated stamps, and from the votes' own noise.

    catmorph evaluate net.safetensors -r training.toml --out page
    python benchmarks/simulated_truth.py page/predictions.csv simulated/clash-training/truth.parquet --out result.json

Voters of a simulation draw from true probabilities p, so the floor of the RMSE against n votes is
sqrt(mean p (1 - p) / n) over stamps and classes; no network can be below it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from measure import versions
from script import write

from catmorph.evaluation.metrics import authors_rmse, rmse


def compared(predictions: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float | int]:
    classes = [name.removeprefix("human_") for name in predictions.columns if name.startswith("human_")]
    joined = predictions.merge(truth, left_on=["field", "id", "view"], right_on=["field", "id", "band"],
                               validate="one_to_one")  # fmt: skip
    if len(joined) != len(predictions):
        raise SystemExit(f"{len(predictions) - len(joined)} stamps of the predictions are not in the truth")
    votes = joined[[f"human_{name}" for name in classes]].to_numpy()
    network = joined[[f"probability_{name}" for name in classes]].to_numpy()
    true = joined[[f"p_{name}" for name in classes]].to_numpy()
    variance = true * (1 - true) / joined["votes"].to_numpy()[:, None]
    floor = float(np.sqrt(variance.mean()))
    return {
        "stamps": len(joined),
        "rmse_votes": rmse(network, votes), "rmse_votes_authors": authors_rmse(network, votes),
        "rmse_truth": rmse(network, true), "rmse_truth_authors": authors_rmse(network, true),
        "truth_rmse_votes": rmse(true, votes), "truth_rmse_votes_authors": authors_rmse(true, votes),
        "floor": floor, "rmse_votes_over_floor": rmse(network, votes) / floor,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    predictions = pd.read_csv(options.predictions, dtype={"id": str, "field": str})
    truth = pd.read_parquet(options.truth)
    truth["id"] = truth["id"].astype(str)
    result = {
        "command": f"python benchmarks/simulated_truth.py {options.predictions.name} {options.truth.name}",
        "versions": versions(),
        **compared(predictions, truth),
    }
    print(write(result, options.out), end="")


if __name__ == "__main__":
    main()

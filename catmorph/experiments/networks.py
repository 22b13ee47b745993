"""The table of several networks trained on the same stamps."""

from __future__ import annotations

import math

import pandas as pd

from catmorph.experiments.plan import Setting
from catmorph.experiments.tables import Results, Spread

SUBSETS = ("training", "validation", "test")
COLUMNS = ("parameters", *(f"{subset}_{what}" for what in ("mse", "accuracy") for subset in SUBSETS), "rmse", "epochs",
           "best_epoch", "seconds")  # fmt: skip
"""What the table tells of each network, as Table 6 of the Galaxy Zoo 2 laboratory and more."""


def network_spread(results: Results, setting: Setting, column: str) -> Spread:
    """Return mean and spread of one of `COLUMNS` over the trainings of a network; n = 0 where it is not known."""
    rows = results.of(setting)
    if column not in rows.columns:
        return Spread(0, *[math.nan] * 4)
    return results.spread(setting, column)


def networks_table(results: Results) -> pd.DataFrame:
    """Return one row a network: mean and standard deviation of each of `COLUMNS`, and the baseline they must beat."""
    rows = []
    for setting in results.settings:
        row: dict[str, object] = {**setting, "n": len(results.of(setting))}
        for column in COLUMNS:
            one = network_spread(results, setting, column)
            row |= {column: one.mean, f"{column}_std": one.std}
        rows.append(row | {"mean_label_rmse": results.spread(setting, "mean_label_rmse").mean})
    return pd.DataFrame(rows)


def network_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the page's table."""
    errors = [f"{what}, {subset}" for what in ("MSE", "accuracy") for subset in SUBSETS]
    header = ["network", "parameters", "n", *errors, "RMSE, test", "epochs", "seconds"]
    rows = []
    for setting in results.settings:
        told = {column: network_spread(results, setting, column) for column in COLUMNS}
        parameters = f"{told['parameters'].mean:,.0f}" if told["parameters"].n else ""
        rows.append([
            str(setting["network"]), parameters, str(len(results.of(setting))),
            *(_cell(told[f"{subset}_mse"], ".5f") for subset in SUBSETS),
            *(_cell(told[f"{subset}_accuracy"], ".3f") for subset in SUBSETS),
            _cell(told["rmse"], ".4f"), _cell(told["epochs"], ".0f"), _cell(told["seconds"], ".0f"),
        ])  # fmt: skip
    return header, rows


def _cell(one: Spread, form: str) -> str:
    if not one.n:
        return ""
    return f"{one.mean:{form}}" + (f" ± {one.std:{form}}" if math.isfinite(one.std) else "")

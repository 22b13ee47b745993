"""The confusion matrix of repeated trainings: mean and standard deviation of each cell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from catmorph.experiments.plan import Setting
from catmorph.experiments.tables import Results

MOST_CLASSES = 12
"""With more classes the matrix is in the CSV files only: no page is wide enough."""


@dataclass(frozen=True)
class MeanConfusion:
    """A row-normalised confusion matrix over n trainings, as Tables 4 to 7 of Wei et al. (2020).

    Rows are what people say, columns what the network says; each row sums to 1.

    Attributes
    ----------
    names : tuple of str
        Of rows and columns.
    mean, std : ndarray, shape (human, predicted)
        Fractions; the standard deviation is that of the trainings (n - 1). NaN in rows without stamps, `std` also with
        a single training.
    stamps : ndarray, shape (human,)
        Test stamps of each row, on average over the trainings.
    n : int
        Trainings.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    stamps: np.ndarray
    n: int

    def table(self) -> pd.DataFrame:
        """Return one row a cell: human, predicted, n, mean, std, stamps."""
        return pd.DataFrame([
            {"human": human, "predicted": predicted, "n": self.n, "mean": self.mean[y, x], "std": self.std[y, x],
             "stamps": self.stamps[y]}
            for y, human in enumerate(self.names) for x, predicted in enumerate(self.names)
        ])  # fmt: skip

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the page's table, in per cent."""
        header = ["people \\ network", *self.names, "stamps"]
        return header, [
            [name, *(_cell(*cell) for cell in zip(self.mean[y], self.std[y], strict=True)), f"{self.stamps[y]:g}"]
            for y, name in enumerate(self.names)
        ]


def mean_confusion(results: Results, setting: Setting) -> MeanConfusion | None:
    """Return the mean confusion matrix of the trainings with `setting`; None where none has one."""
    names, rows = results.answers, results.of(setting)
    if f"stamps, {names[0]}" not in rows.columns:
        return None
    cells = [[results.spread(setting, f"called {model}, {human}") for model in names] for human in names]
    stamps = np.array([rows[f"stamps, {human}"].mean() for human in names])
    return MeanConfusion(
        names, np.array([[one.mean for one in row] for row in cells]),
        np.array([[one.std for one in row] for row in cells]), stamps, len(rows),
    )  # fmt: skip


def _cell(mean: float, std: float) -> str:
    if not math.isfinite(mean):
        return ""
    return f"{100 * mean:.1f}" + (f" ± {100 * std:.1f}" if math.isfinite(std) else "")

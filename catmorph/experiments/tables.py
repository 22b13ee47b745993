"""Means, spreads and paired differences of a grid's results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from catmorph.experiments.measures import answers
from catmorph.experiments.plan import NO_BAND, Grid, Setting, Value
from catmorph.schemes import load_scheme

HEADLINES = ("rmse", "rmse_authors", "cross_entropy", "accuracy", "macro_f1")
"""The metrics that summaries show, where the results have them."""
UNTOLD = ("confusion_axes", "stamps", "sources")
"""Entries of the metrics that are no measure of a training."""


@dataclass(frozen=True)
class Spread:
    """Mean of n values, their standard deviation (n - 1), and the interval of the mean by Student's t.

    With one value all but the mean are NaN.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return self.std / math.sqrt(self.n)


def spread(values: Sequence[float] | np.ndarray, confidence: float) -> Spread:
    """Return mean, standard deviation and interval of `values`; NaN among them are left out."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    n = len(array)
    if n < 2:
        return Spread(n, float(array.mean()) if n else math.nan, math.nan, math.nan, math.nan)
    mean, std = float(array.mean()), float(array.std(ddof=1))
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * std / math.sqrt(n)
    return Spread(n, mean, std, mean - half, mean + half)


class Results:
    """The measures of a grid's trainings.

    Parameters
    ----------
    grid : Grid
    found : sequence of dict
        The results, as `catmorph.experiments.trainings.train_point` keeps them.

    Attributes
    ----------
    classes : tuple of str
        The scheme's, in its order.
    answers : tuple of str
        Rows and columns of the confusion matrices: the classes; of a single yes/no question no and yes.
    found : sequence of dict
    table : DataFrame
        One row a training: the axes of the grid, ``repeat``, ``seed``, ``epochs``, ``best_epoch``, and every
        measure. Where bands are set to zero in the test stamps, one more row for each of them.
    """

    def __init__(self, grid: Grid, found: Sequence[dict[str, Any]]):
        self.grid = grid
        self.confidence = grid.recipe.evaluation.confidence
        scheme = load_scheme(grid.recipe.scheme)
        self.classes, self.answers = scheme.class_names, answers(scheme)
        self.found = found
        self.table = pd.DataFrame([row for one in found for row in _rows(one, self.answers)])

    @property
    def measures(self) -> list[str]:
        """The names of the measures."""
        told = {*self.grid.axes, "repeat", "seed", "epochs", "best_epoch"}
        return [name for name in self.table.columns if name not in told]

    @property
    def headlines(self) -> list[str]:
        """The measures that summaries show."""
        return [name for name in HEADLINES if name in self.table.columns]

    @property
    def percent(self) -> str:
        """The confidence of the intervals, in words."""
        return f"{100 * self.confidence:g}%"

    @cached_property
    def settings(self) -> list[Setting]:
        """The settings with a result, in the order of the grid."""
        listed = [tuple(one.items()) for one in self.grid.settings]
        return [dict(pairs) for pairs in dict.fromkeys([*listed, *self._rows]) if pairs in self._rows]

    @cached_property
    def _rows(self) -> dict[tuple[tuple[str, Value], ...], pd.DataFrame]:
        """The rows of each setting by repeat: looked up thousands of times."""
        if self.table.empty:
            return {}
        axes = list(self.grid.axes)
        groups: Any = self.table.groupby(axes, sort=False)
        return {tuple(zip(axes, values, strict=True)): rows.set_index("repeat").sort_index() for values, rows in groups}

    def of(self, setting: Setting) -> pd.DataFrame:
        """Return the rows with `setting`, by repeat."""
        return self._rows[tuple(setting.items())]

    def spread(self, setting: Setting, measure: str) -> Spread:
        """Return mean and spread of `measure` at `setting`."""
        return spread(self.of(setting)[measure].to_numpy(), self.confidence)

    def reference(self, setting: Setting) -> Setting | None:
        """Return the setting that `setting` is compared with; None where there is none, or no result of it."""
        found = self.grid.experiment.reference(self.grid, setting)
        return found if found is not None and found != setting and tuple(found.items()) in self._rows else None

    def difference(self, setting: Setting, measure: str) -> Spread | None:
        """Return `measure` at `setting` minus that of its reference, paired by repeat: both have the same split."""
        reference = self.reference(setting)
        if reference is None:
            return None
        pairs = self.of(setting)[measure] - self.of(reference)[measure]
        return spread(pairs.to_numpy(), self.confidence)

    def means(self) -> pd.DataFrame:
        """Return one row a setting and measure: n, mean, std, low, high."""
        return pd.DataFrame([
            {**setting, "measure": measure, **vars(self.spread(setting, measure))}
            for setting in self.settings for measure in self.measures
            if self.of(setting)[measure].notna().any()
        ])  # fmt: skip

    def differences(self) -> pd.DataFrame:
        """Return one row a setting with a reference and measure: n, mean, std, low, high of the difference."""
        rows = []
        for setting in self.settings:
            for measure in self.measures:
                found = self.difference(setting, measure)
                if found is not None and found.n:
                    rows.append({**setting, "minus": label(self.reference(setting)), "measure": measure, **vars(found)})
        return pd.DataFrame(rows)


def label(setting: Setting | None) -> str:
    """Return a setting as a few words."""
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in (setting or {}).values())


def stops_gaining(sizes: Sequence[float], spreads: Sequence[Spread]) -> float | None:
    """Return the smallest size whose mean error is within one standard error of the best mean.

    The standard error is that of the best (the one-standard-error rule of Breiman et al. 1984, Sect. 3.4.3). None where
    the best has a single value.
    """
    best = min(spreads, key=lambda one: one.mean)
    if not math.isfinite(best.error):
        return None
    return next(size for size, one in sorted(zip(sizes, spreads, strict=True), key=lambda pair: pair[0])
                if one.mean <= best.mean + best.error)  # fmt: skip


def _rows(found: dict[str, Any], answers: Sequence[str]) -> Iterator[dict[str, Value]]:
    """Yield the row of a training, and one for each band that was set to zero in its test stamps."""
    setting: dict[str, Value] = dict(found["setting"])
    about = {"repeat": found["repeat"], "seed": found["seed"]}
    measured = _measured(found["metrics"], answers)
    measured |= {f"validation_{name}": value for name, value in found["validation"].items()}
    for view, errors in found["views"].items():
        measured |= {f"{name}, {view}": errors[name] for name in ("rmse", "rmse_authors")}
    for subset, values in found.get("subsets", {}).items():
        measured |= {f"{subset}_{name}": value for name, value in values.items()}
    if "parameters" in found:
        measured |= {"parameters": float(found["parameters"]), "seconds": found["seconds"]}
    epochs = {name: found[name] for name in ("epochs", "best_epoch")}
    yield {**setting, **about, **epochs, **measured}
    for entry in found.get("zeroed", ()):
        zeroed = {axis: entry["band"] if value == NO_BAND else value for axis, value in setting.items()}
        yield {**zeroed, **about, **epochs, **_measured(entry["metrics"], answers)}


def _measured(metrics: dict[str, Any], answers: Sequence[str]) -> dict[str, float]:
    """Return the numbers of metrics and of their confusion matrix, by name."""
    measured = dict(_numbers(metrics))
    if "confusion" in metrics:
        measured |= dict(_fractions(np.asarray(metrics["confusion"], dtype=np.float64), answers))
    return measured


def _numbers(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of nested metrics, by name."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}, ")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name not in UNTOLD:
            yield f"{prefix}{name}", float(value)


def _fractions(matrix: np.ndarray, answers: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield the number of stamps of each class (by people), and the fraction of them that is called each class."""
    for human, row in zip(answers, matrix, strict=True):
        yield f"stamps, {human}", float(row.sum())
        for model, count in zip(answers, row, strict=True):
            yield f"called {model}, {human}", float(count / row.sum()) if row.sum() else math.nan

"""How far the numbers scatter from one training to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from catmorph.experiments.conclusions import mean_of
from catmorph.experiments.confusion import MOST_CLASSES, MeanConfusion, mean_confusion
from catmorph.experiments.drawing import BLUE, GREY, RMSE, std_of
from catmorph.experiments.plan import EXPERIMENTS, Experiment, Point, Shape
from catmorph.experiments.tables import Results
from catmorph.release.text import markdown_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _points(shape: Shape) -> Iterator[Point]:
    yield Point({"trainings": "all"}, 0, {})


def _draw(results: Results, figure: Figure) -> None:
    """The mean confusion matrix with its deviations, and the RMSE of each class."""
    figure.set_size_inches(8.8, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    (setting,) = results.settings
    matrix = mean_confusion(results, setting)
    if matrix is not None:
        _confusion(left, matrix)
    classes = results.classes if len(results.classes) > 1 else ()
    measures = ["rmse", *(f"rmse_by_class, {name}" for name in classes)]
    places = np.arange(len(measures), dtype=float)[::-1]
    spreads = [results.spread(setting, measure) for measure in measures]
    right.errorbar([one.mean for one in spreads], places, xerr=[std_of(one) for one in spreads],
                   color=BLUE, marker="o", linestyle="", zorder=3)  # fmt: skip
    for place, measure in zip(places, measures, strict=True):
        values = results.of(setting)[measure].to_numpy()
        right.plot(values, np.full(len(values), place - 0.22), ".", color=GREY, markersize=3, alpha=0.7)
    right.set_yticks(places, ["all classes", *classes] if classes else list(results.classes))
    right.set_xlabel(RMSE)


def _confusion(axes: Axes, matrix: MeanConfusion) -> None:
    """Draw the mean confusion matrix in per cent; the standard deviations are told where there is room."""
    axes.imshow(matrix.mean, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.grid(visible=False)
    names = matrix.names
    for (y, x), mean in np.ndenumerate(matrix.mean):
        std = matrix.std[y, x]
        if np.isfinite(mean) and len(names) <= MOST_CLASSES:
            text = f"{100 * mean:.1f}" + (f"\n±{100 * std:.1f}" if np.isfinite(std) else "")
            axes.text(x, y, text, ha="center", va="center", fontsize=7.5, color="white" if mean > 0.55 else "black")
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("network")
    axes.set_ylabel("people (rows: 100%)")
    axes.set_title(f"mean and standard deviation of {matrix.n} trainings (%)", fontsize=8, loc="left")


def _conclusions(results: Results) -> Iterator[str]:
    for measure in results.headlines:
        yield f"{measure}: {mean_of(results.spread(results.settings[0], measure))}."
    yield from _best_validation(results)


def _best_validation(results: Results) -> Iterator[str]:
    if "validation_rmse" in results.table.columns:
        row = results.table.sort_values("validation_rmse", kind="stable").iloc[0]
        yield (f"The training of the lowest validation RMSE is number {int(row['repeat'])}: validation "
               f"{row['validation_rmse']:.4f}, test {row['rmse']:.4f}.")  # fmt: skip


def _tables(results: Results) -> dict[str, pd.DataFrame]:
    matrix = mean_confusion(results, results.settings[0])
    return {} if matrix is None else {"confusion": matrix.table()}


def _lines(results: Results) -> Iterator[str]:
    matrix = mean_confusion(results, results.settings[0])
    if matrix is not None and len(matrix.names) <= MOST_CLASSES:
        yield (f"Confusion matrix in per cent, mean ± standard deviation of {matrix.n} trainings; rows are what "
               "people say and sum to 100, columns what the network says:")  # fmt: skip
        yield ""
        yield from (*markdown_table(*matrix.rows()), "")


EXPERIMENTS.register("repeat")(
    Experiment(
        name="repeat",
        title="Repeated trainings",
        axes=("trainings",),
        repeats="repeats",
        points=_points,
        reference=lambda grid, setting: None,
        figure=_draw,
        conclusions=_conclusions,
        tables=_tables,
        lines=_lines,
    )
)

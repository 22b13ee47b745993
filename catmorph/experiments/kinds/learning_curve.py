"""How the error falls with the size of the training subset, fine-tuned and from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from catmorph.experiments.conclusions import compared
from catmorph.experiments.drawing import BLUE, ORANGE, RMSE, bars, levels
from catmorph.experiments.plan import EXPERIMENTS, Experiment, Grid, Point, Setting, Shape
from catmorph.experiments.tables import Results, stops_gaining

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINE_TUNED, FROM_SCRATCH = "fine-tuned", "from scratch"


def _points(shape: Shape) -> Iterator[Point]:
    starts = {FINE_TUNED: shape.section.start, FROM_SCRATCH: None}
    for size in sorted(set(shape.recipe.experiments.sizes)):
        for start, checkpoint in starts.items():
            # What is frozen is frozen at what a checkpoint holds.
            changes = {"size": size, "start": checkpoint} | ({} if checkpoint else {"freeze_before": None})
            if start == FROM_SCRATCH or checkpoint:
                yield Point({"size": size, "start": start}, 0, changes)


def _from_scratch(grid: Grid, setting: Setting) -> Setting:
    return {**setting, "start": FROM_SCRATCH}


def _draw(results: Results, figure: Figure) -> None:
    """RMSE against the size of the training subset (Fig. 4 of Perez-Carrasco et al. 2019)."""
    axes = figure.subplots()
    styles = ((FINE_TUNED, BLUE, "o", "-"), (FROM_SCRATCH, ORANGE, "s", "--"))
    for shift, (start, colour, marker, line) in zip((-1, 1), styles, strict=True):
        settings = [one for one in results.settings if one["start"] == start]
        if settings:
            sizes = np.array([one["size"] for one in settings], dtype=float)
            # Bars of the two starts stand beside each other.
            bars(axes, sizes + shift * 4, [results.spread(one, "rmse") for one in settings],
                  color=colour, marker=marker, linestyle=line, label=start)  # fmt: skip
    levels(axes, results)
    axes.set_xlabel("stamps in the training subset")
    axes.set_ylabel(RMSE)
    axes.set_xlim(left=0)
    axes.legend(fontsize=8)


def _conclusions(results: Results) -> Iterator[str]:
    for start in (FINE_TUNED, FROM_SCRATCH):
        settings = [one for one in results.settings if one["start"] == start]
        if len(settings) > 1:
            spreads = [results.spread(one, "rmse") for one in settings]
            size = stops_gaining([float(one["size"]) for one in settings], spreads)
            if size is not None:
                best = min(spreads, key=lambda one: one.mean)
                yield (f"The {start} network stops gaining at {size:.0f} stamps: the smallest size whose mean RMSE "
                       f"is within one standard error ({best.error:.4f}) of the best mean ({best.mean:.4f}).")
    told = [(one["size"], difference) for one, difference in compared(results)]
    if told:
        better = [size for size, one in told if one.mean < 0]
        sure = [size for size, one in told if one.high < 0]
        yield f"The fine-tuned network has the lower mean RMSE at {_listed(better, len(told))}."
        yield f"The interval of the paired difference lies below zero at {_listed(sure, len(told))}."


def _listed(sizes: Sequence[object], total: int) -> str:
    if len(sizes) == total:
        return f"every size ({total})"
    return f"{len(sizes)} of {total} sizes" + (f": {', '.join(map(str, sizes))}" if sizes else "")


EXPERIMENTS.register("learning-curve")(
    Experiment(
        name="learning-curve",
        title="Size of the training subset",
        axes=("size", "start"),
        repeats="splits",
        points=_points,
        reference=_from_scratch,
        figure=_draw,
        conclusions=_conclusions,
    )
)

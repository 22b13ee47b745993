"""How much sky around a source the network should see."""

from __future__ import annotations

from collections.abc import Iterator

from catmorph.errors import UsageError
from catmorph.experiments.conclusions import best_and_differences
from catmorph.experiments.drawing import against_numbers
from catmorph.experiments.plan import EXPERIMENTS, Experiment, Grid, Point, Setting, Shape, thinned

RANDOM = "random"
"""The point whose sides are drawn in training."""


def _points(shape: Shape) -> Iterator[Point]:
    if shape.recipe.labels.stamp_files is not None:
        raise UsageError("crop-size cuts stamps anew, and labels.stamp_files gives stamps that are cut already",
                         hint="name catalog and mosaics, and no stamp files")
    unit, wanted = shape.recipe.stamp.side_unit, shape.recipe.experiments.crop_sizes
    sides = tuple(sorted({side for side in wanted if not isinstance(side, str)}))
    for side in thinned(sides) if shape.quick else sides:
        yield Point({"side": side}, 0, {}, side=f"{side:g} {unit}")
    if RANDOM in wanted:
        # The stamps of the largest side, of which training sees a part that is drawn anew each time.
        yield Point({"side": RANDOM}, 0, {"zoom": (sides[0] / sides[-1], 1.0)}, side=f"{sides[-1]:g} {unit}")


def _own_side(grid: Grid, setting: Setting) -> Setting:
    return dict.fromkeys(setting, grid.recipe.stamp.side_value)


EXPERIMENTS.register("crop-size")(
    Experiment(
        name="crop-size",
        title="Side of the stamps",
        axes=("side",),
        repeats="splits",
        points=_points,
        reference=_own_side,
        figure=against_numbers("side of the stamps ({unit})"),
        conclusions=best_and_differences,
    )
)

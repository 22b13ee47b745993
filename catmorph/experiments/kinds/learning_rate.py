"""Which learning rate is best."""

from __future__ import annotations

from collections.abc import Iterator

from catmorph.experiments.conclusions import best_and_differences
from catmorph.experiments.drawing import against_numbers
from catmorph.experiments.plan import EXPERIMENTS, Experiment, Grid, Point, Setting, Shape


def _points(shape: Shape) -> Iterator[Point]:
    for rate in sorted(set(shape.recipe.experiments.learning_rates)):
        yield Point({"learning rate": rate}, 0, {"learning_rate": rate})


def _own_rate(grid: Grid, setting: Setting) -> Setting | None:
    return {"learning rate": grid.recipe.training.learning_rate} if grid.recipe.training else None


EXPERIMENTS.register("learning-rate")(
    Experiment(
        name="learning-rate",
        title="Learning rate",
        axes=("learning rate",),
        repeats="splits",
        points=_points,
        reference=_own_rate,
        figure=against_numbers("learning rate", logarithmic=True),
        conclusions=best_and_differences,
    )
)

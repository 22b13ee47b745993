"""How many stages of the network can stay as the checkpoint has them."""

from __future__ import annotations

from collections.abc import Iterator

from catmorph.errors import UsageError, suggest
from catmorph.experiments.conclusions import best_and_differences
from catmorph.experiments.drawing import against_names
from catmorph.experiments.plan import EXPERIMENTS, Experiment, Point, Shape, thinned
from catmorph.models import MODELS

NOTHING = "nothing"
"""The point without a frozen stage."""


def _points(shape: Shape) -> Iterator[Point]:
    if not shape.section.start:
        raise UsageError("freezing needs a checkpoint to start from", hint="give --from or set experiments.start")
    stages = MODELS.get(shape.section.model).stages
    chosen = shape.recipe.experiments.stages
    for stage in chosen:
        if stage not in stages[1:]:
            raise UsageError(f"experiments.stages: {shape.section.model} has no stage {stage!r} to freeze before",
                             hint=suggest(stage, stages[1:]))
    chosen = chosen or tuple(stage for stage in stages if stage.startswith("inception")) or stages[1:]
    if shape.quick:
        chosen = thinned(chosen)
    for stage in (NOTHING, *chosen):
        yield Point({"frozen before": stage}, 0, {"freeze_before": None if stage == NOTHING else stage})


EXPERIMENTS.register("freezing")(
    Experiment(
        name="freezing",
        title="Stages that are frozen",
        axes=("frozen before",),
        repeats="repeats",
        points=_points,
        reference=lambda grid, setting: {"frozen before": NOTHING},
        figure=against_names("frozen before this stage"),
        conclusions=best_and_differences,
    )
)

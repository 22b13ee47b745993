"""What training is without the stamps of a filter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from catmorph.errors import UsageError
from catmorph.experiments.conclusions import clear_differences, compared, interval
from catmorph.experiments.drawing import BLUE, GREY, ORANGE, sideways
from catmorph.experiments.plan import EXPERIMENTS, Experiment, Point, Shape
from catmorph.experiments.tables import Results, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_FILTER = "no filter"
"""The point with every filter; no view can be called so."""


def _points(shape: Shape) -> Iterator[Point]:
    if len(shape.views) < 2:
        bands = "; leave-band-out sets the bands of a stamp to zero instead" if shape.channels > 1 else ""
        raise UsageError(
            f"filter-importance needs several views: the labelled stamps are all of {shape.views[0]}{bands}"
        )
    yield Point({"without": NO_FILTER}, 0, {})
    for view in shape.views:
        yield Point({"without": view}, 0, {"leave_out": (view,)})


def _draw(results: Results, figure: Figure) -> None:
    """How much the error grows without the stamps of a filter, on all test stamps and on those of that filter."""
    settings = [one for one in results.settings if one["without"] != NO_FILTER]
    filters = [str(one["without"]) for one in settings]
    figure.set_size_inches(5.6, 1.6 + 0.26 * max(len(filters), 4))
    axes = figure.subplots()
    places = np.arange(len(filters), dtype=float)[::-1]
    sideways(axes, places, [results.difference(one, "rmse") for one in settings], BLUE, "o", "all test stamps")
    own = [results.difference(one, f"rmse, {name}") for one, name in zip(settings, filters, strict=True)]
    sideways(axes, places - 0.25, own, ORANGE, "s", "test stamps of that filter")
    axes.legend(fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(places, filters)
    axes.grid(visible=False, axis="y")
    axes.set_ylabel("filter left out of training")
    axes.set_xlabel("change of the test RMSE (mean and interval of the paired differences)")


def _conclusions(results: Results) -> Iterator[str]:
    told = compared(results)
    if told:
        worst, difference = max(told, key=lambda pair: pair[1].mean)
        yield (f"The filter that matters most to all test stamps is {label(worst)}: without it the RMSE changes by "
               f"{difference.mean:+.4f}{interval(difference)}.")  # fmt: skip
    yield from clear_differences(results)


EXPERIMENTS.register("filter-importance")(
    Experiment(
        name="filter-importance",
        title="Filters left out",
        axes=("without",),
        repeats="splits",
        points=_points,
        reference=lambda grid, setting: {"without": NO_FILTER},
        figure=_draw,
        conclusions=_conclusions,
    )
)

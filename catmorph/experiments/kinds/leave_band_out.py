"""What a network makes of stamps in which a band is zero."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from catmorph.errors import UsageError
from catmorph.experiments.bands import band_changes, band_rows, bands_table
from catmorph.experiments.confusion import MOST_CLASSES
from catmorph.experiments.drawing import CYCLE, GREY
from catmorph.experiments.measures import EVERYTHING
from catmorph.experiments.plan import EXPERIMENTS, NO_BAND, ZEROED, Experiment, Point, Shape
from catmorph.experiments.tables import Results
from catmorph.release.text import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _points(shape: Shape) -> Iterator[Point]:
    if shape.channels < 2:
        raise UsageError("leave-band-out sets the bands of a stamp to zero, and the views of the recipe have one each",
                         hint="name the bands of a view in [views], or leave views out of training: filter-importance")
    # One network tells of every band: each is set to zero in the same test stamps.
    yield Point({"without": NO_BAND}, 0, {})


def _draw(results: Results, figure: Figure) -> None:
    """How the fraction called as people do changes without each band: of all stamps, and of those of each class."""
    found = band_changes(results)
    bands = list(dict.fromkeys(one.band for one in found))
    groups = [EVERYTHING, *results.answers[:MOST_CLASSES]]
    figure.set_size_inches(5.6, 1.7 + len(bands) * max(0.5, 0.17 * len(groups)))
    axes = figure.subplots()
    places = np.arange(len(bands), dtype=float)[::-1]
    for number, group in enumerate(groups):
        rows = [(place, one) for place, band in zip(places, bands, strict=True) for one in found
                if one.band == band and one.group == group and np.isfinite(one.change)]  # fmt: skip
        shift = 0.35 - 0.7 * number / max(len(groups) - 1, 1)
        sides = [[100 * (one.change - one.low), 100 * (one.high - one.change)] for _, one in rows]
        axes.errorbar(
            [100 * one.change for _, one in rows], [place + shift for place, _ in rows],
            xerr=np.nan_to_num(np.array(sides).reshape(-1, 2).T), linestyle="", zorder=3, markersize=4,
            color="black" if group == EVERYTHING else CYCLE[(number - 1) % len(CYCLE)],
            marker="D" if group == EVERYTHING else "o", label="all stamps" if group == EVERYTHING else group,
        )  # fmt: skip
    for place in places[:-1] - 0.5:
        axes.axhline(place, color="#E5E5E5", linewidth=0.6)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(places, bands)
    axes.grid(visible=False, axis="y")
    axes.set_ylabel("band set to zero")
    axes.set_xlabel("change of the stamps called as people do (percentage points)")
    figure.legend(fontsize=8, ncols=3, loc="outside upper left")


def _conclusions(results: Results) -> Iterator[str]:
    found = [one for one in band_changes(results) if one.group == EVERYTHING and math.isfinite(one.change)]
    if not found:
        return
    worst = min(found, key=lambda one: one.change)
    interval = f" ({100 * worst.low:+.1f} to {100 * worst.high:+.1f})" if math.isfinite(worst.low) else ""
    yield (f"The band that matters most is {worst.band}: when it is zero, {100 * worst.after:.1f}% instead of "
           f"{100 * worst.before:.1f}% of the stamps are called as people do, {100 * worst.change:+.1f} percentage "
           f"points{interval}.")  # fmt: skip
    if results.grid.given is not None:
        yield f"The stamps are {results.found[0]['note']}."


def _tables(results: Results) -> dict[str, pd.DataFrame]:
    return {"bands": bands_table(band_changes(results))}


def _lines(results: Results) -> Iterator[str]:
    changes = band_changes(results)
    if changes:
        of = "the paired differences, by Student's t" if len(results.found) > 1 else "the change on these stamps"
        yield ("Per cent of the stamps that are called as people do, of all and of each class; when a band is zero, "
               f"after a colon the change in percentage points with the {results.percent} interval of {of}:")
        yield ""
        yield from (*markdown_table(*band_rows(changes, results.answers)), "")


EXPERIMENTS.register("leave-band-out")(
    Experiment(
        name="leave-band-out",
        title="Bands set to zero",
        axes=("without",),
        repeats="repeats",
        points=_points,
        reference=lambda grid, setting: {"without": NO_BAND},
        figure=_draw,
        conclusions=_conclusions,
        tables=_tables,
        lines=_lines,
        wants=(ZEROED,),
        tests=True,
    )
)

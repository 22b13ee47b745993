"""What the figures of experiments are drawn with. matplotlib, which takes long to import, waits until one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from catmorph.experiments.plan import Setting
from catmorph.experiments.tables import Results, Spread, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"
"""Colours that the colour-blind can tell apart (Okabe & Ito)."""
CYCLE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
RMSE = "test RMSE (mean, standard deviation)"


def against_names(xlabel: str) -> Callable[[Results, Figure], None]:
    """Return the drawing of RMSE against settings that are names."""

    def drawing(results: Results, figure: Figure) -> None:
        axes = figure.subplots()
        settings = results.settings
        places = np.arange(len(settings), dtype=float)
        bars(axes, places, [results.spread(one, "rmse") for one in settings], color=BLUE, marker="o", linestyle="")
        dots(axes, places, results, settings)
        axes.set_xticks(places, [label(one) for one in settings], rotation=40, ha="right", rotation_mode="anchor")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(RMSE)

    return drawing


def against_numbers(xlabel: str, *, logarithmic: bool = False) -> Callable[[Results, Figure], None]:
    """Return the drawing of RMSE against a number; a point that is none stands apart, at the right."""

    def drawing(results: Results, figure: Figure) -> None:
        axes = figure.subplots()
        numbers = [one for one in results.settings if not isinstance(next(iter(one.values())), str)]
        others = [one for one in results.settings if one not in numbers]
        places = [float(next(iter(one.values()))) for one in numbers]
        if logarithmic:
            axes.set_xscale("log")
        step = (max(places) - min(places)) / max(len(places) - 1, 1) if places else 1.0
        aside = [max(places, default=0.0) + step * (number + 1) for number in range(len(others))]
        for settings, where, marker, line in ((numbers, places, "o", "-"), (others, aside, "D", "")):
            if settings:
                spreads = [results.spread(one, "rmse") for one in settings]
                bars(axes, np.array(where), spreads, color=BLUE, marker=marker, linestyle=line)
                dots(axes, np.array(where), results, settings)
        unit = results.grid.recipe.stamp.side_unit
        axes.set_xticks([*places, *aside], [label(one) for one in [*numbers, *others]])
        axes.minorticks_off()
        axes.set_xlabel(xlabel.format(unit=unit))
        axes.set_ylabel(RMSE)

    return drawing


def bars(axes: Axes, places: np.ndarray, spreads: Sequence[Spread], **style: Any) -> None:
    """Draw means with bars of their standard deviations."""
    axes.errorbar(places, [one.mean for one in spreads], yerr=[std_of(one) for one in spreads], **{"zorder": 3} | style)


def sideways(
    axes: Axes, places: np.ndarray, spreads: Sequence[Spread | None], colour: str, marker: str, text: str
) -> None:
    """Draw means with their intervals, along x; what is None is left out."""
    rows = [(place, one) for place, one in zip(places, spreads, strict=True) if one is not None]
    half = [one.high - one.mean if np.isfinite(one.high) else 0.0 for _, one in rows]
    axes.errorbar([one.mean for _, one in rows], [place for place, _ in rows], xerr=half, color=colour, marker=marker,
                  linestyle="", label=text, zorder=3)  # fmt: skip


def dots(axes: Axes, places: np.ndarray, results: Results, settings: Sequence[Setting]) -> None:
    """Show each training, a little to the right of its mean."""
    from matplotlib.transforms import ScaledTranslation

    aside = ScaledTranslation(6 / 72, 0, axes.figure.dpi_scale_trans)
    for place, setting in zip(places, settings, strict=True):
        values = results.of(setting)["rmse"].to_numpy()
        axes.plot(np.full(len(values), place), values, ".", color=GREY, markersize=3, alpha=0.7,
                  transform=axes.transData + aside)  # fmt: skip
        # What is not drawn in the coordinates of the data does not count for the limits by itself.
        axes.update_datalim([(place, value) for value in values if np.isfinite(value)])
    axes.autoscale_view()


def levels(axes: Axes, results: Results) -> None:
    """Draw what a constant answer and a perfect network would reach, on average over the test subsets.

    A level far above the results would squeeze them, and is left out.
    """
    highest = 1.3 * max(results.spread(one, "rmse").mean for one in results.settings)
    for measure, text in (("mean_label_rmse", "always the mean label"), ("vote_noise_rmse", "noise of the votes")):
        if measure in results.table.columns:
            level = float(results.table[measure].mean())
            if level > highest:
                continue
            axes.axhline(level, color=GREY, linewidth=0.9, linestyle=":")
            axes.annotate(text, (1, level), xycoords=("axes fraction", "data"), xytext=(-2, 2),
                          textcoords="offset points", ha="right", fontsize=7.5, color="#555555")  # fmt: skip


def std_of(one: Spread) -> float:
    """Return the standard deviation, 0 where there is none."""
    return one.std if np.isfinite(one.std) else 0.0

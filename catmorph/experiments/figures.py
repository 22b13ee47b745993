"""The figure of each experiment, as PNG and PDF; same results, same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from catmorph.experiments.bands import band_changes
from catmorph.experiments.confusion import MOST_CLASSES, MeanConfusion, mean_confusion
from catmorph.experiments.measures import EVERYTHING
from catmorph.experiments.plan import FINE_TUNED, FROM_SCRATCH, NO_FILTER, Setting
from catmorph.experiments.tables import Results, Spread, label
from catmorph.files import atomic

DPI = 150
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"
"""Colours that the colour-blind can tell apart (Okabe & Ito)."""
CYCLE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
STYLE: dict[str, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "errorbar.capsize": 2.5,
    "lines.markersize": 5, "pdf.fonttype": 42, "text.parse_math": False,
}  # fmt: skip
RMSE = "test RMSE (mean, standard deviation)"


def draw(results: Results, path: Path) -> list[Path]:
    """Draw the figure of an experiment as `path` with the endings .png and .pdf, and return the two files."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for key, value in STYLE.items():
            mpl.rcParams[key] = value  # type: ignore[index]
        figure = Figure(figsize=(5.6, 3.8), layout="constrained")
        FIGURES[results.grid.experiment.name](results, figure)
        return save(figure, path)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF, without dates and versions."""
    files = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    with atomic(files[0]) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, dpi=DPI, format="png", metadata={"Software": None})
    with atomic(files[1]) as temporary:
        nothing = {"CreationDate": None, "Creator": None, "Producer": None}
        FigureCanvasPdf(figure).print_figure(temporary, format="pdf", metadata=nothing)
    return files


def _learning_curve(results: Results, figure: Figure) -> None:
    """RMSE against the size of the training subset (Fig. 4 of Perez-Carrasco et al. 2019)."""
    axes = figure.subplots()
    styles = ((FINE_TUNED, BLUE, "o", "-"), (FROM_SCRATCH, ORANGE, "s", "--"))
    for shift, (start, colour, marker, line) in zip((-1, 1), styles, strict=True):
        settings = [one for one in results.settings if one["start"] == start]
        if settings:
            sizes = np.array([one["size"] for one in settings], dtype=float)
            # Bars of the two starts stand beside each other.
            _bars(axes, sizes + shift * 4, [results.spread(one, "rmse") for one in settings],
                  color=colour, marker=marker, linestyle=line, label=start)  # fmt: skip
    _levels(axes, results)
    axes.set_xlabel("stamps in the training subset")
    axes.set_ylabel(RMSE)
    axes.set_xlim(left=0)
    axes.legend(fontsize=8)


def _compare(results: Results, figure: Figure) -> None:
    """The learning curves of the networks: RMSE and accuracy of validation, and accuracy of training."""
    figure.set_size_inches(8.8, 4.2)
    left, right = figure.subplots(1, 2)
    for number, setting in enumerate(results.settings):
        colour = CYCLE[number % len(CYCLE)]
        found = [one for one in results.found if dict(one["setting"]) == setting and one.get("curve")]
        for place, one in enumerate(found):
            curve = {name: [row[name] for row in one["curve"]] for name in one["curve"][0]}
            # One line to read, those of the other splits behind it.
            strength = {"color": colour, "alpha": 1.0 if place == 0 else 0.3, "linewidth": 1.5 if place == 0 else 0.8}
            named = str(setting["network"]) if place == 0 else None
            left.plot(curve["epoch"], curve["validation_rmse"], label=named, **strength)
            right.plot(curve["epoch"], curve["validation_accuracy"], label=named, **strength)
            right.plot(curve["epoch"], curve["training_accuracy"], linestyle=":", **strength)
            best = one["best_epoch"] - 1
            left.plot(curve["epoch"][best], curve["validation_rmse"][best], "o", color=colour, alpha=strength["alpha"])
    left.set_ylabel("validation RMSE (mark: the epoch that is kept)")
    right.set_ylabel("accuracy (dotted: training, as perturbed)")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.legend(fontsize=8)


def _named(xlabel: str) -> Callable[[Results, Figure], None]:
    """Return the drawing of RMSE against settings that are names."""

    def drawing(results: Results, figure: Figure) -> None:
        axes = figure.subplots()
        settings = results.settings
        places = np.arange(len(settings), dtype=float)
        _bars(axes, places, [results.spread(one, "rmse") for one in settings], color=BLUE, marker="o", linestyle="")
        _dots(axes, places, results, settings)
        axes.set_xticks(places, [label(one) for one in settings], rotation=40, ha="right", rotation_mode="anchor")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(RMSE)

    return drawing


def _measured(xlabel: str, *, logarithmic: bool = False) -> Callable[[Results, Figure], None]:
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
                _bars(axes, np.array(where), spreads, color=BLUE, marker=marker, linestyle=line)
                _dots(axes, np.array(where), results, settings)
        unit = results.grid.recipe.stamp.side_unit
        axes.set_xticks([*places, *aside], [label(one) for one in [*numbers, *others]])
        axes.minorticks_off()
        axes.set_xlabel(xlabel.format(unit=unit))
        axes.set_ylabel(RMSE)

    return drawing


def _filter_importance(results: Results, figure: Figure) -> None:
    """How much the error grows without the stamps of a filter, on all test stamps and on those of that filter."""
    settings = [one for one in results.settings if one["without"] != NO_FILTER]
    filters = [str(one["without"]) for one in settings]
    figure.set_size_inches(5.6, 1.6 + 0.26 * max(len(filters), 4))
    axes = figure.subplots()
    places = np.arange(len(filters), dtype=float)[::-1]
    _sideways(axes, places, [results.difference(one, "rmse") for one in settings], BLUE, "o", "all test stamps")
    own = [results.difference(one, f"rmse, {name}") for one, name in zip(settings, filters, strict=True)]
    _sideways(axes, places - 0.25, own, ORANGE, "s", "test stamps of that filter")
    axes.legend(fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(places, filters)
    axes.grid(visible=False, axis="y")
    axes.set_ylabel("filter left out of training")
    axes.set_xlabel("change of the test RMSE (mean and interval of the paired differences)")


def _leave_band_out(results: Results, figure: Figure) -> None:
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


def _repeat(results: Results, figure: Figure) -> None:
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
    right.errorbar([one.mean for one in spreads], places, xerr=[_std(one) for one in spreads],
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


def _bars(axes: Axes, places: np.ndarray, spreads: Sequence[Spread], **style: Any) -> None:
    axes.errorbar(places, [one.mean for one in spreads], yerr=[_std(one) for one in spreads], **{"zorder": 3} | style)


def _sideways(
    axes: Axes, places: np.ndarray, spreads: Sequence[Spread | None], colour: str, marker: str, text: str
) -> None:
    rows = [(place, one) for place, one in zip(places, spreads, strict=True) if one is not None]
    half = [one.high - one.mean if np.isfinite(one.high) else 0.0 for _, one in rows]
    axes.errorbar([one.mean for _, one in rows], [place for place, _ in rows], xerr=half, color=colour, marker=marker,
                  linestyle="", label=text, zorder=3)  # fmt: skip


def _dots(axes: Axes, places: np.ndarray, results: Results, settings: Sequence[Setting]) -> None:
    """Show each training, a little to the right of its mean."""
    aside = ScaledTranslation(6 / 72, 0, axes.figure.dpi_scale_trans)
    for place, setting in zip(places, settings, strict=True):
        values = results.of(setting)["rmse"].to_numpy()
        axes.plot(np.full(len(values), place), values, ".", color=GREY, markersize=3, alpha=0.7,
                  transform=axes.transData + aside)  # fmt: skip
        # What is not drawn in the coordinates of the data does not count for the limits by itself.
        axes.update_datalim([(place, value) for value in values if np.isfinite(value)])
    axes.autoscale_view()


def _levels(axes: Axes, results: Results) -> None:
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


def _std(one: Spread) -> float:
    return one.std if np.isfinite(one.std) else 0.0


FIGURES: dict[str, Callable[[Results, Figure], None]] = {
    "learning-curve": _learning_curve,
    "freezing": _named("frozen before this stage"),
    "filter-importance": _filter_importance,
    "leave-band-out": _leave_band_out,
    "compare": _compare,
    "crop-size": _measured("side of the stamps ({unit})"),
    "learning-rate": _measured("learning rate", logarithmic=True),
    "repeat": _repeat,
}
"""The drawing of each experiment."""

"""Colour-magnitude diagrams and pair plots of sources, with the classes that a network predicts for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from catmorph.recipe import EvaluationSection
from catmorph.report.drawing import COLOURS, GREY, MARKS, Drawing, drawing, new_figure
from catmorph.schemes import Scheme
from catmorph.sources.regions import Columns, Regions, quantities

MOST_POINTS = 20_000
"""More points than these are not told apart: evenly spaced ones are drawn."""
_GRID = 300
_TAIL = 0.2
"""Per cent of the points at either end that do not set the limits of an axis: odd colours lie far off."""


@dataclass(frozen=True)
class Points:
    """Sources, or stamps of them, with their classes.

    Attributes
    ----------
    columns : mapping of str to ndarray, shape (n,)
        Columns of the sources.
    predicted : ndarray of int, shape (n,)
        Index of the predicted class, -1 for none.
    titles : tuple of str
        What the classes are called.
    human : ndarray of int, shape (n,), optional
        Index of the class that people say, -1 for none.
    """

    columns: Columns
    predicted: np.ndarray
    titles: tuple[str, ...]
    human: np.ndarray | None = None

    def thinned(self) -> Points:
        """Return evenly spaced points, at most `MOST_POINTS`."""
        count = len(self.predicted)
        if count <= MOST_POINTS:
            return self
        rows = np.linspace(0, count - 1, MOST_POINTS).astype(np.int64)
        return Points({name: values[rows] for name, values in self.columns.items()}, self.predicted[rows], self.titles,
                      None if self.human is None else self.human[rows])


def classes_of(scheme: Scheme, values: np.ndarray, threshold: float = 0.5) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return one class a row, and what the classes are called.

    Parameters
    ----------
    values : ndarray, shape (n, class)
        Probabilities or vote fractions; NaN where there are none.
    threshold : float
        From which a single yes/no question is answered yes.

    Returns
    -------
    classes : ndarray of int, shape (n,)
        The class of the largest value; of a scheme with questions, the largest answer of the first one, which is asked
        of all; of a single yes/no question, 0 for no and 1 for yes. -1 where a value is missing.
    titles : tuple of str
    """
    titles = tuple(one.title for one in scheme.classes)
    known = np.isfinite(values).all(axis=1)
    if len(titles) == 1:
        found = (np.nan_to_num(values[:, 0]) >= threshold).astype(np.int64)
        return np.where(known, found, -1), (f"no: {titles[0]}", f"yes: {titles[0]}")
    if scheme.questions:
        first = [scheme.index(name) for name in scheme.questions[0].classes]
        values, titles = values[:, first], tuple(titles[index] for index in first)
    return np.where(known, np.nan_to_num(values).argmax(axis=1), -1), titles


def draw_colours(points: Points, section: EvaluationSection, suffix: str = "") -> Iterator[Drawing]:
    """Draw what the recipe asks for: a colour-magnitude diagram, a scatter matrix, both or none.

    Parameters
    ----------
    suffix : str
        Ends the stems of the files, where several views have figures.

    Raises
    ------
    RecipeError
        When an expression names a column that there is not.
    """
    axes, texts = section.colour_magnitude, section.pairs
    total, points = len(points.predicted), points.thinned()
    count = len(points.predicted)
    drawn = f" {count:,} of {total:,} are drawn, evenly spaced." if count < total else ""
    marks = "" if points.human is None else " Marks: class by people."
    if axes is not None:
        values = quantities((axes.x, axes.y), points.columns, "evaluation.colour_magnitude")
        regions = Regions(section.groups)
        shown, missing = _limits(values), _missing(values)
        inside = regions.on_axes(axes.x, axes.y, _grid(shown[axes.x], shown[axes.y]))
        left = [name for name in section.groups if name not in inside]
        caption = f"Colours: predicted class.{marks}{_lines(inside)}{missing}{drawn}"
        if left:
            caption += f" Not drawn, for they depend on other columns or are written otherwise: {', '.join(left)}."
        yield drawing(f"colour-magnitude{suffix}", f"{axes.y} against {axes.x}", caption,
                      lambda: _diagram(points, (axes.x, axes.y), values, inside))
    if texts:
        found = quantities(texts, points.columns, "evaluation.pairs")
        caption = f"Colours: predicted class.{marks} On the diagonal: distributions.{_missing(found)}{drawn}"
        yield drawing(f"pairs{suffix}", "Pairs of quantities", caption, lambda: _matrix(points, texts, found))


def _lines(inside: dict[str, np.ndarray]) -> str:
    return f" Dashed: boundaries of {', '.join(inside)}." if inside else ""


def _missing(values: dict[str, np.ndarray]) -> str:
    missing = int(np.count_nonzero(~np.all([np.isfinite(one) for one in values.values()], axis=0)))
    outside = int(np.count_nonzero(np.any([(one < low) | (one > high) for one, (low, high) in
                                           zip(values.values(), _limits(values).values(), strict=True)], axis=0)))
    text = f" {missing:,} have no value." if missing else ""
    return text + (f" {outside:,} lie beyond the axes." if outside else "")


def _limits(values: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    found = {}
    for text, one in values.items():
        finite = one[np.isfinite(one)]
        low, high = np.percentile(finite, [_TAIL, 100 - _TAIL]) if len(finite) else (0.0, 1.0)
        margin = 0.06 * (high - low) if high - low > 1e-9 * max(1.0, abs(high)) else 0.5
        found[text] = (float(low - margin), float(high + margin))
    return found


def _grid(x: tuple[float, float], y: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.meshgrid(np.linspace(*x, _GRID), np.linspace(*y, _GRID))
    return first, second


def _diagram(
    points: Points, names: tuple[str, str], values: dict[str, np.ndarray], inside: dict[str, np.ndarray]
) -> Figure:
    figure = new_figure(6.6, 4.4)
    axes = figure.add_subplot()
    limits = _limits(values)
    x, y = (limits[name] for name in names)
    colours = _colours(points)
    _scatter(axes, points, values[names[0]], values[names[1]], colours)
    grid = _grid(x, y)
    for name, mask in inside.items():
        if mask.any() and not mask.all():
            axes.contour(*grid, mask.astype(float), levels=[0.5], colors="#444444", linestyles="--", linewidths=0.9)
        if mask.any():
            row, column = _middle(mask)
            axes.annotate(name, (grid[0][row, column], grid[1][row, column]), ha="center", va="center", fontsize=8,
                          color="#444444", style="italic",
                          bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1})
    axes.set(xlabel=names[0], ylabel=names[1], xlim=x, ylim=y)
    axes.set_title(_count(points))
    _legend(axes, points, colours)
    return figure


def _middle(mask: np.ndarray) -> tuple[int, int]:
    """Return the pixel of `mask` nearest to its centre of mass, which may lie outside of it."""
    rows, columns = np.nonzero(mask)
    near = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(rows[near]), int(columns[near])


def _matrix(points: Points, texts: Sequence[str], values: dict[str, np.ndarray]) -> Figure:
    size = len(texts)
    figure = new_figure(1.9 * size + 2.2, 1.9 * size + 0.8)
    grid = figure.subplots(size, size, squeeze=False, gridspec_kw={"wspace": 0.08, "hspace": 0.08})
    limits, colours = _limits(values), _colours(points)
    for row, column in ((row, column) for row in range(size) for column in range(size)):
        axes = grid[row, column]
        if column > row:
            axes.set_axis_off()
            continue
        if row == column:
            _histograms(axes, points, values[texts[row]], limits[texts[row]], colours)
            axes.set_yticks([])
        else:
            _scatter(axes, points, values[texts[column]], values[texts[row]], colours)
            axes.set_ylim(limits[texts[row]])
        axes.set_xlim(limits[texts[column]])
        # Labels at the ends of an axis would run into those of the next panel.
        axes.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
        axes.tick_params(labelbottom=row == size - 1, labelleft=column == 0 and row > 0)
        axes.set_xlabel(texts[column] if row == size - 1 else "")
        axes.set_ylabel(texts[row] if column == 0 and row else "")
    figure.suptitle(_count(points), fontsize=9)
    _legend(grid[0, 0], points, colours, 1.1, columns=2)
    return figure


def _histograms(
    axes: Axes, points: Points, values: np.ndarray, limits: tuple[float, float], colours: dict[int, str]
) -> None:
    for index, colour in colours.items():
        chosen = values[_of(points.predicted, index, colours) & np.isfinite(values)]
        if len(chosen):
            axes.hist(chosen, bins=25, range=limits, histtype="step", color=colour, linewidth=1.1)


def _colours(points: Points) -> dict[int, str]:
    """Return a colour for each of the classes predicted most, in their order; -1 stands for all others."""
    count = np.bincount(points.predicted[points.predicted >= 0], minlength=len(points.titles))
    most = [int(index) for index in np.argsort(-count, kind="stable")[: len(COLOURS)] if count[index]]
    found = {index: COLOURS[number] for number, index in enumerate(sorted(most))}
    rest = int(np.count_nonzero(~np.isin(points.predicted, most)))
    return found | ({-1: GREY} if rest else {})


def _of(classes: np.ndarray, index: int, known: dict[int, Any]) -> np.ndarray:
    return classes == index if index >= 0 else ~np.isin(classes, [one for one in known if one >= 0])


def _marks(points: Points) -> dict[int, str]:
    """Return a mark for each of the classes that people say most, in their order; -1 stands for all others."""
    if points.human is None:
        return {}
    count = np.bincount(points.human[points.human >= 0], minlength=len(points.titles))
    most = [int(index) for index in np.argsort(-count, kind="stable")[: len(MARKS)] if count[index]]
    found = {index: MARKS[number] for number, index in enumerate(sorted(most))}
    return found | ({-1: "*"} if np.any(~np.isin(points.human, most)) else {})


def _scatter(axes: Axes, points: Points, x: np.ndarray, y: np.ndarray, colours: dict[int, str]) -> None:
    known = np.isfinite(x) & np.isfinite(y)
    crowd = len(x) > 2000
    look: dict[str, Any] = {"s": 5 if crowd else 16, "alpha": 0.5 if crowd else 0.75, "linewidths": 0,
                            "rasterized": crowd}
    marks = _marks(points) or {-2: "o"}
    # Others first, rare classes last: they are not to be covered.
    for index in sorted(colours, key=lambda one: (one >= 0, -np.count_nonzero(points.predicted == one))):
        for human, mark in marks.items():
            chosen = known & _of(points.predicted, index, colours)
            if points.human is not None:
                chosen &= _of(points.human, human, marks)
            if chosen.any():
                axes.scatter(x[chosen], y[chosen], color=colours[index], marker=mark, **look)


def _legend(axes: Axes, points: Points, colours: dict[int, str], shift: float = 1.02, columns: int = 1) -> None:
    def name(index: int, classes: np.ndarray, known: dict[int, Any], other: str) -> str:
        count = int(np.count_nonzero(_of(classes, index, known)))
        return f"{points.titles[index] if index >= 0 else other} ({count:,})"

    def line(label: str, **look: Any) -> Line2D:
        return Line2D([], [], linestyle="", markersize=5, label=label, **look)

    entries = [line("predicted", marker="")]
    entries += [line(name(index, points.predicted, colours, "others, or none"), marker="o", color=colour)
                for index, colour in colours.items()]
    if points.human is not None:
        marks = _marks(points)
        others = [line("by people", marker="")]
        others += [line(name(index, points.human, marks, "others, or none"), marker=mark, color=GREY)
                   for index, mark in marks.items()]
        # Columns are filled evenly: the shorter one needs empty entries.
        blank = [line("", marker="")] * (max(len(entries), len(others)) if columns > 1 else 0)
        entries = [*entries, *blank[len(entries):], *others, *blank[len(others):]]
    axes.legend(handles=entries, loc="upper left", bbox_to_anchor=(shift, 1.0), borderaxespad=0, handletextpad=0.2,
                ncols=columns if points.human is not None else 1)


def _count(points: Points) -> str:
    return f"n = {len(points.predicted):,}"

"""Stamps that stand for a class: those with the largest vote fractions and the largest probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from catmorph.labels.chosen import ROUNDING
from catmorph.recipe import EvaluationSection
from catmorph.release.tally import Merger
from catmorph.report.colour import Palette, picture
from catmorph.report.drawing import Drawing, drawing, new_figure

GALLERY = 25
"""Most stamps in the gallery of mergers."""
_SIDE = 1.25


@dataclass(frozen=True)
class Examples:
    """Stamps with their votes and predictions.

    Attributes
    ----------
    inputs : ndarray, shape (n, channel, y, x)
        As the network sees them.
    palette : function of int to Palette
        How the stamp of a row is drawn.
    fractions, probabilities : ndarray, shape (n, class)
    names : sequence of str
        What the stamps are called.
    classes, titles : tuple of str
    merger : Merger, optional
        What counts as a merger, where that is told.
    """

    inputs: np.ndarray
    palette: Callable[[int], Palette]
    fractions: np.ndarray
    probabilities: np.ndarray
    names: Sequence[str]
    classes: tuple[str, ...]
    titles: tuple[str, ...]
    merger: Merger | None = None


def draw_examples(shown: Examples, section: EvaluationSection) -> Iterator[Drawing]:
    """Draw prototypes of the classes that the recipe names, or one of each class, and a gallery of mergers."""
    for name in section.prototypes:
        index = shown.classes.index(name)
        count = min(section.prototype_count, len(shown.inputs))
        rows = {"by people": _largest(shown.fractions[:, index], count),
                "by the network": _largest(shown.probabilities[:, index], count)}
        caption = f"The {count} stamps with the largest vote fractions, and with the largest probabilities, of " \
                  f"{shown.titles[index]}. Under each: vote fraction and probability."
        yield drawing(f"prototypes_{name}", f"Prototypes: {shown.titles[index]}", caption,
                      partial(_rows, shown, rows, index))
    if not section.prototypes:
        caption = "The stamp with the largest vote fraction of each class. Under each: vote fraction and probability."
        yield drawing("prototypes", "A prototype of each class", caption, lambda: _each(shown))
    if shown.merger is not None:
        yield from _mergers(shown, shown.merger)


def _mergers(shown: Examples, merger: Merger) -> Iterator[Drawing]:
    index = shown.classes.index(merger.class_name)
    number = int(np.count_nonzero(shown.fractions[:, index] >= merger.threshold - ROUNDING))
    if not number:
        return
    chosen = _largest(shown.fractions[:, index], min(number, GALLERY))
    caption = (f"{len(chosen)} of the {number:,} stamps with a vote fraction of at least {merger.threshold:g}, the "
               "largest first. Under each: vote fraction and probability.")
    yield drawing("mergers", f"Gallery: {merger.label}", caption, lambda: _grid(shown, chosen, index))


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-np.asarray(values, np.float64), kind="stable")[:count]


def _rows(shown: Examples, rows: dict[str, np.ndarray], index: int) -> Figure:
    count = max(len(chosen) for chosen in rows.values())
    figure, grid = _cells(len(rows), count)
    for line, (label, chosen) in zip(grid, rows.items(), strict=True):
        for axes, row in zip(line, chosen, strict=False):
            _show(axes, shown, int(row), index)
        line[0].set_ylabel(label, fontsize=8)
    return figure


def _grid(shown: Examples, chosen: np.ndarray, index: int) -> Figure:
    columns = min(5, len(chosen))
    figure, grid = _cells(-(-len(chosen) // columns), columns)
    for axes, row in zip(grid.flat, chosen, strict=False):
        _show(axes, shown, int(row), index)
    return figure


def _each(shown: Examples) -> Figure:
    columns = min(6, len(shown.classes))
    figure, grid = _cells(-(-len(shown.classes) // columns), columns, 0.62)
    for index, axes in enumerate(grid.flat[: len(shown.classes)]):
        _show(axes, shown, int(_largest(shown.fractions[:, index], 1)[0]), index)
        title = shown.titles[index]
        axes.set_title(title if len(title) <= 24 else f"{title[:22]}...", fontsize=6.5, pad=2)
    return figure


def _cells(rows: int, columns: int, between: float = 0.42) -> tuple[Figure, np.ndarray]:
    figure = new_figure(_SIDE * columns + 0.7, (_SIDE + between) * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.06, "hspace": between / _SIDE})
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.set_frame_on(False)
    return figure, grid


def _show(axes: Axes, shown: Examples, row: int, index: int) -> None:
    axes.imshow(picture(shown.inputs[row], shown.palette(row)), origin="lower", interpolation="nearest")
    name = str(shown.names[row])
    values = f"{shown.fractions[row, index]:.2f} / {shown.probabilities[row, index]:.2f}"
    axes.set_xlabel(f"{name if len(name) <= 18 else name[:16] + '...'}\n{values}", fontsize=5.5, labelpad=2)

"""Figures of confusion matrices: people on the vertical axis, the network on the horizontal one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from catmorph.report.drawing import GREY, new_figure

MOST_CLASSES = 10
"""With more classes the cells of a panel cannot be read."""
_PANELS_A_ROW = 3


def confusion_figure(found: Mapping[str, Any], titles: Sequence[str]) -> Figure:
    """Draw one matrix: ``counts``, ``stamps`` and, for stamps that people agree on, ``agreement``."""
    size = len(titles)
    side = max(3.4, 0.72 * size)
    figure = new_figure(side + 1.6, side + 1.0)
    axes = figure.add_subplot()
    image = _cells(axes, found, 8.5 if size <= 8 else 5)
    _name(axes, titles)
    axes.set_xlabel("most probable class (network)")
    axes.set_ylabel("most voted class (people)")
    where = f", vote fraction ≥ {found['agreement']:g}" if "agreement" in found else ""
    axes.set_title(f"n = {found['stamps']:,} stamps{where}")
    figure.colorbar(image, ax=axes, label="fraction of the row", fraction=0.045, pad=0.03)
    return figure


def confusion_panels(matrices: Mapping[str, Mapping[str, Any]], titles: Sequence[str]) -> Figure:
    """Draw several matrices of the same classes, by name."""
    columns = min(len(matrices), _PANELS_A_ROW)
    rows = -(-len(matrices) // columns)
    side = max(2.2, 0.55 * len(titles))
    figure = new_figure(side * columns + 1.6, (side + 0.3) * rows + 1.2)
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.12, "hspace": 0.25})
    for unused in grid.flat[len(matrices):]:
        unused.set_axis_off()
    for number, (name, found) in enumerate(matrices.items()):
        axes = grid.flat[number]
        _cells(axes, found, 8 if len(titles) <= 4 else 5)
        _name(axes, titles)
        axes.tick_params(labelleft=number % columns == 0, labelbottom=number >= len(matrices) - columns)
        axes.set_ylabel("people" if number % columns == 0 else "")
        axes.set_xlabel("network" if number >= len(matrices) - columns else "")
        axes.set_title(f"{name}\nn = {found['stamps']:,}", fontsize=8)
    return figure


def _cells(axes: Axes, found: Mapping[str, Any], size: float) -> AxesImage:
    counts = np.array(found["counts"])
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    image = axes.imshow(np.nan_to_num(share), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        if totals[row, 0]:
            text = f"{share[row, column]:.0%}\n{counts[row, column]:,}"
            colour = "white" if share[row, column] > 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
        elif column == 0:
            axes.text(-0.4, row, "no stamp", ha="left", va="center", fontsize=size, color=GREY, style="italic")
    return image


def _name(axes: Axes, titles: Sequence[str]) -> None:
    labels = [_wrapped(title) for title in titles]
    axes.set_xticks(range(len(titles)), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(titles)), labels)
    axes.tick_params(length=0)


def _wrapped(title: str) -> str:
    if len(title) <= 14:
        return title
    # At the space nearest to the middle.
    spaces = [place for place, one in enumerate(title) if one == " "]
    if not spaces:
        return title
    at = min(spaces, key=lambda place: abs(place - len(title) / 2))
    return f"{title[:at]}\n{title[at + 1:]}"

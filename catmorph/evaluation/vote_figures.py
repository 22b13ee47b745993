"""Figures of labels with many answers: histograms, and correlations of all answers and within each question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import NullLocator

from catmorph.report.drawing import COLOURS, Drawing, drawing, label_panels, new_figure, new_panels

Blocks = Sequence[tuple[str, Sequence[int]]]
"""Questions: their names and the indices of their answers."""


def draw_labels(found: dict[str, Any], titles: Sequence[str], blocks: Blocks) -> Iterator[Drawing]:
    """Draw what `catmorph.evaluation.votes.label_statistics` found."""
    bins = found["histograms"]["bins"]
    yield drawing("label_histograms", "Distributions of the labels", f"Fraction of the stamps in each of {bins} bins "
                  "of vote fraction, on a logarithmic scale.", lambda: _histograms(found["histograms"], titles))
    matrix = np.array([[np.nan if value is None else value for value in row] for row in found["correlation"]["matrix"]])
    sample = f"{found['correlation']['stamps']:,} stamps, {_named(found['correlation']['subset'])}"
    text = f"Pearson's coefficients between the vote fractions of {sample}; white: a class that does not vary."
    yield drawing("correlation", "Correlation of the labels", text + (" Lines part the questions." if len(blocks) > 1
                  else ""), lambda: _matrix(matrix, titles, blocks))
    if len(blocks) > 1:
        yield drawing("correlation_questions", "Correlation of the answers to each question", text,
                      lambda: _blocks(matrix, titles, blocks))


def _named(subset: str) -> str:
    return "all that have labels" if subset == "all" else f"the {subset} subset"


def _histograms(found: dict[str, Any], titles: Sequence[str]) -> Figure:
    figure, panels = new_panels(len(titles), 1.9)
    edges = np.linspace(0, 1, found["bins"] + 1)
    for index, axes in enumerate(panels):
        for number, one in enumerate(found["subsets"].values()):
            counts = np.array(list(one["counts"].values())[index]) / max(one["stamps"], 1)
            axes.stairs(counts, edges, color=COLOURS[number], linewidth=1.1, baseline=None)
        axes.set_title(titles[index] if len(titles[index]) < 30 else titles[index][:28] + "...", fontsize=7)
    panels[0].set(yscale="log", xlim=(0, 1))
    panels[0].set_ylim(0.5 / max(one["stamps"] for one in found["subsets"].values()), 1.5)
    panels[0].set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    panels[0].yaxis.set_major_formatter(_plain)
    panels[0].yaxis.set_minor_locator(NullLocator())
    for number, (name, one) in enumerate(found["subsets"].items()):
        panels[0].plot([], [], color=COLOURS[number], label=f"{name} ({one['stamps']:,})")
    panels[0].legend(loc="upper right", fontsize=5.5, handlelength=1)
    label_panels(figure, "vote fraction", "fraction of the stamps", "")
    return figure


def _plain(value: float, position: float) -> str:
    return f"{value:g}"


def _matrix(matrix: np.ndarray, titles: Sequence[str], blocks: Blocks) -> Figure:
    size = len(matrix)
    side = max(3.5, 0.2 * size)
    figure = new_figure(side + 1.6, side + 1.2)
    axes = figure.add_subplot()
    order = [index for _, answers in blocks for index in answers]
    image = _image(axes, matrix[np.ix_(order, order)])
    names = [titles[index] for index in order]
    axes.set_xticks(range(size), names, rotation=90, fontsize=6.5)
    axes.set_yticks(range(size), names, fontsize=6.5)
    axes.tick_params(length=0)
    edges = np.cumsum([len(answers) for _, answers in blocks])[:-1] - 0.5
    for edge in edges:
        axes.axhline(edge, color="#444444", linewidth=0.6)
        axes.axvline(edge, color="#444444", linewidth=0.6)
    figure.colorbar(image, ax=axes, label="correlation", fraction=0.04, pad=0.02)
    return figure


def _blocks(matrix: np.ndarray, titles: Sequence[str], blocks: Blocks) -> Figure:
    columns = min(4, len(blocks))
    rows = -(-len(blocks) // columns)
    figure = new_figure(2.7 * columns + 1.0, 2.9 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.75, "hspace": 0.85})
    for unused in grid.flat[len(blocks):]:
        unused.set_axis_off()
    for axes, (name, answers) in zip(grid.flat, blocks, strict=False):
        _image(axes, matrix[np.ix_(answers, answers)])
        names = [titles[index] if len(titles[index]) < 22 else titles[index][:20] + "..." for index in answers]
        axes.set_xticks(range(len(answers)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=6)
        axes.set_yticks(range(len(answers)), names, fontsize=6)
        axes.tick_params(length=0)
        axes.set_title(name, fontsize=8)
        for row, column in np.ndindex(len(answers), len(answers)):
            value = matrix[answers[row], answers[column]]
            if np.isfinite(value):
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6 if len(answers) < 6 else 5,
                          color="white" if abs(value) > 0.6 else "black")
    return figure


def _image(axes: Axes, matrix: np.ndarray) -> AxesImage:
    return axes.imshow(np.ma.masked_invalid(matrix), cmap="RdBu_r", vmin=-1, vmax=1)

"""Figures as PNG and PDF; same numbers, same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
"""Told apart by the colour-blind (Okabe & Ito 2008, "Color Universal Design"), without the yellow."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
MARKS = "osD^vPX"
GREY = "#777777"
_TICKS = {0: "0", 0.5: "0.5", 1: "1"}
_DPI = 160
_STYLE: dict[Any, Any] = {
    "font.size": 8.5, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 7.5, "axes.linewidth": 0.7,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "lines.linewidth": 1.3, "pdf.fonttype": 42, "text.parse_math": False,
    "legend.frameon": False, "svg.hashsalt": "catmorph", "xtick.direction": "in", "ytick.direction": "in",
    "xtick.top": True, "ytick.right": True,
}


@dataclass(frozen=True)
class Drawing:
    """A figure: the stem of its files, what it shows, and its bytes."""

    key: str
    title: str
    caption: str
    png: bytes
    pdf: bytes


def drawing(key: str, title: str, caption: str, draw: Callable[[], Figure]) -> Drawing:
    """Return what `draw` draws as PNG and PDF, in the project's style; `key` is the stem of the files' names."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = draw()
        # Letters are of other widths at other resolutions: measured at the default one, long legends would be cut.
        figure.set_dpi(_DPI)
        png, pdf = io.BytesIO(), io.BytesIO()
        canvas = FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        tight: dict[str, Any] = {"bbox_inches": figure.get_tightbbox(canvas.get_renderer()).padded(0.08)}
        # Without these entries a file says nothing of versions and times.
        canvas.print_figure(png, format="png", dpi=_DPI, metadata={"Software": None}, **tight)
        FigureCanvasPdf(figure).print_figure(
            pdf, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None}, **tight
        )
    return Drawing(key, title, caption, png.getvalue(), pdf.getvalue())


def new_figure(width: float, height: float) -> Figure:
    """Return a figure with margins for labels; what reaches beyond them is not cut when it is printed."""
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left=0.6 / width, right=1 - 0.1 / width, bottom=0.6 / height, top=1 - 0.55 / height)
    return figure


def new_panels(count: int, side: float = 2.4, *, unit: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` square panels that share their axes, which with `unit` are from 0 to 1."""
    columns = min(count, 3 if count <= 6 else 5 if count <= 15 else 7)
    rows = -(-count // columns)
    figure = new_figure(side * columns + 0.7, side * (1.22 * rows - 0.22) + 1.15)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True,
                           gridspec_kw={"wspace": 0.08, "hspace": 0.22})
    for axes in grid.flat:
        axes.set_box_aspect(1)
    if unit:
        # Shared by all: set for each they would take a second for 37 panels.
        grid[0, 0].set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        grid[0, 0].set_xticks(list(_TICKS), list(_TICKS.values()))
        grid[0, 0].set_yticks(list(_TICKS), list(_TICKS.values()))
    for unused in grid.flat[count:]:
        unused.set_axis_off()
    for above in grid.flat[max(0, count - columns) : count]:
        above.tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def label_panels(figure: Figure, x: str, y: str, title: str) -> None:
    """Write names of the common axes, and a title, at the sides of a figure of panels."""
    width, height = figure.get_size_inches()
    figure.supxlabel(x, fontsize=9, y=0.12 / height)
    figure.supylabel(y, fontsize=9, x=0.05 / width)
    figure.suptitle(title, fontsize=9, y=1 - 0.05 / height)

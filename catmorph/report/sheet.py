"""Drawing a sheet of labelled stamps; same input, same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from catmorph.files import atomic
from catmorph.release.cells import ascii_text
from catmorph.report.colour import GREY, MISSING, Palette, picture

SIDE = 120
"""Pixels of a stamp on the sheet, whatever its own size."""

_GAP, _CAPTION, _LINE, _TOP, _DPI = 6, 26, 11, 22, 100
_LONGEST = 22


@dataclass(frozen=True)
class Cell:
    """A stamp (channel, y, x), None where there is none, the lines of text below it, and how it is drawn."""

    stamp: np.ndarray | None
    name: str
    label: str
    palette: Palette = GREY


def draw_sheet(path: Path, grid: Sequence[Sequence[Cell]], headings: Sequence[str], title: str = "") -> None:
    """Write a PNG with a grid of stamps; `headings` stand over the columns, or `title` over the sheet."""
    columns = max(len(row) for row in grid)
    width = columns * (SIDE + _GAP) + _GAP
    lines = max(cell.label.count("\n") for row in grid for cell in row)
    step = SIDE + _CAPTION + _LINE * lines + _GAP
    height = _TOP + len(grid) * step
    with mpl.rc_context():
        mpl.rcdefaults()
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        canvas = FigureCanvasAgg(figure)
        for index, heading in enumerate(headings):
            _write(figure, _GAP + index * (SIDE + _GAP), height - 15, heading, "bold")
        if title:
            _write(figure, _GAP, height - 15, title, "bold")
        for number, row in enumerate(grid):
            top = height - _TOP - number * step
            for index, cell in enumerate(row):
                _draw_cell(figure, cell, _GAP + index * (SIDE + _GAP), top)
        with atomic(path) as temporary:
            # Without its Software entry the PNG says nothing of versions.
            canvas.print_png(temporary, metadata={"Software": None})


def _draw_cell(figure: Figure, cell: Cell, left: int, top: int) -> None:
    image = np.full((SIDE, SIDE, 3), MISSING) if cell.stamp is None else _enlarged(picture(cell.stamp, cell.palette))
    figure.figimage(image, xo=left, yo=top - SIDE, origin="lower")
    for number, line in enumerate((cell.name, *cell.label.split("\n")), start=1):
        _write(figure, left, top - SIDE - number * _LINE, line, "normal")


def _write(figure: Figure, left: int, bottom: int, text: str, weight: str) -> None:
    shown = ascii_text(text)
    shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 2] + ".."
    width, height = figure.get_size_inches() * _DPI
    figure.text(left / width, bottom / height, shown, fontsize=6.5, weight=weight, parse_math=False)


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Return the image at SIDE x SIDE by nearest pixels, so that what was measured is what is seen."""
    rows = np.arange(SIDE) * image.shape[0] // SIDE
    columns = np.arange(SIDE) * image.shape[1] // SIDE
    return image[rows][:, columns]

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

SIDE = 120
"""Pixels of a stamp on the sheet, whatever its own size."""

_GAP, _CAPTION, _TOP, _DPI = 6, 26, 22, 100
_LONGEST = 22
_MISSING = (0.16, 0.18, 0.30)
_SOFTENING = 3.0


@dataclass(frozen=True)
class Cell:
    """A stamp (channel, y, x), None where there is none, and its two lines of text."""

    stamp: np.ndarray | None
    name: str
    label: str


def draw_sheet(path: Path, grid: Sequence[Sequence[Cell]], headings: Sequence[str], title: str = "") -> None:
    """Write a PNG with a grid of stamps; `headings` stand over the columns, or `title` over the sheet."""
    columns = max(len(row) for row in grid)
    width = columns * (SIDE + _GAP) + _GAP
    height = _TOP + len(grid) * (SIDE + _CAPTION + _GAP)
    with mpl.rc_context():
        mpl.rcdefaults()
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        canvas = FigureCanvasAgg(figure)
        for index, heading in enumerate(headings):
            _write(figure, _GAP + index * (SIDE + _GAP), height - 15, heading, "bold")
        if title:
            _write(figure, _GAP, height - 15, title, "bold")
        for number, row in enumerate(grid):
            top = height - _TOP - number * (SIDE + _CAPTION + _GAP)
            for index, cell in enumerate(row):
                _draw_cell(figure, cell, _GAP + index * (SIDE + _GAP), top)
        with atomic(path) as temporary:
            # Without its Software entry the PNG says nothing of versions.
            canvas.print_png(temporary, metadata={"Software": None})


def _draw_cell(figure: Figure, cell: Cell, left: int, top: int) -> None:
    image = np.full((SIDE, SIDE, 3), _MISSING) if cell.stamp is None else _enlarged(stretched(cell.stamp))
    figure.figimage(image, xo=left, yo=top - SIDE, origin="lower")
    _write(figure, left, top - SIDE - 11, cell.name, "normal")
    _write(figure, left, top - SIDE - 22, cell.label, "normal")


def _write(figure: Figure, left: int, bottom: int, text: str, weight: str) -> None:
    shown = ascii_text(text)
    shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 2] + ".."
    width, height = figure.get_size_inches() * _DPI
    figure.text(left / width, bottom / height, shown, fontsize=6.5, weight=weight, parse_math=False)


def stretched(stamp: np.ndarray) -> np.ndarray:
    """Return a stamp as an image (y, x, 3) of values 0..1 by an asinh stretch; invalid pixels are bluish.

    Parameters
    ----------
    stamp : ndarray, shape (channel, y, x)
        NaN where invalid. Three channels are red, green, blue; any other number is averaged to grey.
    """
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(stamp)
        planes = stamp if len(stamp) == 3 else _mean(stamp, valid)
    image = np.stack([_asinh(plane) for plane in np.broadcast_to(planes, (3, *stamp.shape[1:]))], axis=-1)
    image[~valid.any(axis=0)] = _MISSING
    return image


def _mean(stamp: np.ndarray, valid: np.ndarray) -> np.ndarray:
    total = np.where(valid, stamp, 0.0).sum(axis=0, dtype=np.float64)
    count = valid.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)[None]


def _asinh(plane: np.ndarray) -> np.ndarray:
    values = plane[np.isfinite(plane)].astype(np.float64)
    if not values.size:
        return np.zeros(plane.shape)
    low = np.median(values)
    noise = 1.4826 * np.median(np.abs(values - low)) or np.std(values) or 1.0
    scaled = np.arcsinh((np.nan_to_num(plane.astype(np.float64), nan=low) - low) / (_SOFTENING * noise))
    bottom = -np.arcsinh(2.0 / _SOFTENING)
    top = max(np.percentile(np.arcsinh((values - low) / (_SOFTENING * noise)), 99.8), bottom + 1e-6)
    return np.clip((scaled - bottom) / (top - bottom), 0.0, 1.0)


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Return the image at SIDE x SIDE by nearest pixels, so that what was measured is what is seen."""
    rows = np.arange(SIDE) * image.shape[0] // SIDE
    columns = np.arange(SIDE) * image.shape[1] // SIDE
    return image[rows][:, columns]

"""Cutting many stamps of one mosaic at once: those that lie whole on it, along its axes, without an invalid pixel.

Most stamps of a survey are such. What comes out is what `cut_stamp` gives for each, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from catmorph.stamps.cut import Pixels
from catmorph.stamps.separable import Taps, axis_span, axis_start, axis_taps
from catmorph.stamps.weighing import weighted_sums

_STRIP_PIXELS = 1 << 23
"""Mosaic pixels read at once: 32 MB, and as much again while they are converted."""

_BATCH_PIXELS = 1 << 18
"""Stamp pixels that are made at once: 1 MB, which stays in the cache until they are looked at."""

_SIZES = 2
"""Kinds of spans, and with them of batches, from one span to twice as long ones."""


class Readable(Pixels, Protocol):
    """Pixels that tell what a window costs, so that many windows can be read as one where that is less."""

    def cost(self, first: np.ndarray, past: np.ndarray) -> np.ndarray:
        """Return the work (...) of reading windows from `first` to `past` (..., 2) x, y, in pixels read in a row."""
        ...


@dataclass(frozen=True)
class ParallelStamps:
    """Where the pixel grids of n stamps lie on a mosaic whose axes are theirs.

    Attributes
    ----------
    centre : array (n, 2)
        Mosaic pixel x, y (0-based pixel centres) under the stamp's centre.
    step : array (n, 2)
        Mosaic pixels a stamp pixel along x and y; negative where an axis runs backwards.
    pixels : int
        Side of the stamps.
    """

    centre: np.ndarray
    step: np.ndarray
    pixels: int


class Batch(NamedTuple):
    """Some stamps that were cut.

    Attributes
    ----------
    rows : int array (m,)
        Which of the n they are.
    pixels : float32 array (m, y, x)
        NaN where a pixel is invalid, of whatever weight.
    blank : bool array (m,)
        Where no pixel of the window is valid.
    """

    rows: np.ndarray
    pixels: np.ndarray
    blank: np.ndarray


def cut_whole(mosaic: Readable, stamps: ParallelStamps, resample: str) -> Iterator[Batch]:
    """Yield the stamps, but for those whose window goes beyond the mosaic.

    Raises
    ------
    MosaicError
        When the mosaic cannot be read.
    """
    span = axis_span(stamps.step, stamps.pixels)
    first = axis_start(stamps.centre, span)
    inside = ((first >= 0) & (first + span <= mosaic.shape[::-1])).all(axis=1)
    for group in _strips(np.flatnonzero(inside), first, first + span):
        for rows, sheet, start in _sheets(mosaic, group, first, first + span, stamps.pixels):
            x, y = (_taps(stamps, rows, axis, first, start, sheet, resample) for axis in (0, 1))
            pixels = weighted_sums(sheet, y, x)
            yield Batch(rows, pixels, _blank(pixels, sheet, start, span[rows]))


def _taps(stamps: ParallelStamps, rows: np.ndarray, axis: int, first: np.ndarray, start: np.ndarray,
          sheet: np.ndarray, resample: str) -> Taps:
    """Return the taps of some stamps along x (0) or y (1) of a sheet."""
    # Counted in the window: so what is rounded does not depend on where the window lies on the sheet.
    taps = axis_taps(stamps.pixels, (stamps.centre[rows] - first[rows])[:, axis], stamps.step[rows, axis], resample)
    return taps.placed(start[:, axis], sheet.shape[1 - axis])


def _blank(stamps: np.ndarray, sheet: np.ndarray, start: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Return of which stamps (m, y, x) the window, `span` (m, 2) long from `start` on the sheet, is all NaN."""
    blank = np.isnan(stamps[:, 0, 0])
    for row in np.flatnonzero(blank):
        blank[row] = np.isnan(sheet[_window(start[row], start[row] + span[row])]).all()
    return blank


def _strips(candidates: np.ndarray, first: np.ndarray, past: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the `candidates` in groups whose windows, from the bottom up, fill an area that may be read at once."""
    order = candidates[np.argsort(first[candidates, 1], kind="stable")]
    if not order.size:
        return
    if (past[order].max(axis=0) - first[order].min(axis=0)).prod() <= _STRIP_PIXELS:
        yield order
        return
    begin, left, right, bottom, top = 0, *_box(first[order[0]], past[order[0]])
    for place, (x0, y0, x1, y1) in enumerate(np.hstack([first[order], past[order]]).tolist()):
        wider = min(left, x0), max(right, x1), bottom, max(top, y1)
        if place > begin and (wider[1] - wider[0]) * (wider[3] - wider[2]) > _STRIP_PIXELS:
            yield order[begin:place]
            begin, wider = place, (x0, x1, y0, y1)
        left, right, bottom, top = wider
    yield order[begin:]


def _box(first: np.ndarray, past: np.ndarray) -> tuple[int, int, int, int]:
    return int(first[0]), int(past[0]), int(first[1]), int(past[1])


Sheet = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Stamps (m,), pixels (y, x) that hold their windows, and where in these the windows begin (m, 2) x, y."""


def _sheets(mosaic: Readable, group: np.ndarray, first: np.ndarray, past: np.ndarray, side: int) -> Iterator[Sheet]:
    """Yield the stamps of a group in batches: on the part of the mosaic under them all, read as one.

    Or, where that is less work, with the windows read one by one and put above each other.
    """
    origin, end = first[group].min(axis=0), past[group].max(axis=0)
    if mosaic.cost(origin, end) <= mosaic.cost(first[group], past[group]).sum():
        strip = mosaic.window(*_window(origin, end))
        for rows in _batches(group, past - first, side):
            yield rows, strip, first[rows] - origin
        return
    for rows in _batches(group, past - first, side):
        width, height = (past[rows] - first[rows]).T
        top = np.cumsum(height)
        sheet = np.zeros((top[-1], width.max()), np.float32)
        start = np.stack([np.zeros_like(top), top - height], axis=1)
        for row, corner in zip(rows, start, strict=True):
            sheet[_window(corner, corner + past[row] - first[row])] = mosaic.window(*_window(first[row], past[row]))
        yield rows, sheet, start


def _batches(group: np.ndarray, span: np.ndarray, side: int) -> Iterator[np.ndarray]:
    """Yield the stamps of a group in batches of similar spans: all of a batch get as many taps as one of them needs."""
    order = group[np.argsort(span[group].max(axis=1), kind="stable")]
    alike = np.floor(_SIZES * np.log2(span[order].max(axis=1)))
    size = max(1, _BATCH_PIXELS // side**2)
    for some in np.split(order, np.flatnonzero(np.diff(alike)) + 1):
        for begin in range(0, len(some), size):
            yield some[begin : begin + size]


def _window(first: np.ndarray, past: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns from `first` to `past` (2,) x, y."""
    (left, bottom), (right, top) = first.tolist(), past.tolist()
    return slice(bottom, top), slice(left, right)

"""Cutting many stamps of one mosaic at once: those that lie whole on it, along its axes, without an invalid pixel.

Most stamps of a survey are such. What comes out is what `cut_stamp` gives for each, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from catmorph.stamps.cut import Pixels
from catmorph.stamps.separable import axis_span, axis_start, axis_weights

_STRIP_PIXELS = 1 << 23
"""Mosaic pixels read at once: 32 MB, and as much again while they are converted."""

_BATCH_PIXELS = 1 << 19
"""Window pixels whose weights are made at once: 2 MB."""


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
        NaN all over where a pixel of the window is invalid.
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
        pixels = _Strip(mosaic, first[group], first[group] + span[group])
        for rows in _batches(group, span):
            x, y = (
                axis_weights(stamps.pixels, stamps.centre[rows, axis] - first[rows, axis], stamps.step[rows, axis],
                             int(span[rows[0], axis]), resample, columns=axis == 0)
                for axis in (0, 1)
            )
            yield Batch(rows, *_weighed(pixels.windows(first[rows], span[rows[0]]), y, x))


def _weighed(windows: Iterable[np.ndarray], left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``left @ window @ right`` of every window, and which windows are blank (m,).

    The factors are (m, pixels, ny) and (m, nx, pixels). A NaN anywhere in a window makes all of its stamp NaN, since
    0 x NaN is NaN.
    """
    # One by one: many at once would have to be brought together first, which takes as long as to resample them.
    stamps = np.empty((len(left), left.shape[1], right.shape[2]), np.float32)
    narrowed = np.empty((left.shape[1], right.shape[1]), np.float32)
    blank = np.zeros(len(left), bool)
    for row, (stamp, window, along, across) in enumerate(zip(stamps, windows, left, right, strict=True)):
        if window[0, 0] != window[0, 0] and np.isnan(window).all():  # NaN is not itself
            stamp[:], blank[row] = np.nan, True
            continue
        np.matmul(along, window, out=narrowed)
        np.matmul(narrowed, across, out=stamp)
    return stamps, blank


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


def _batches(group: np.ndarray, span: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the stamps of a group in batches of one window shape."""
    order = group[np.lexsort(span[group].T)]
    for alike in np.split(order, np.flatnonzero(np.diff(span[order], axis=0).any(axis=1)) + 1):
        size = max(1, int(_BATCH_PIXELS // span[alike[0]].prod()))
        for begin in range(0, len(alike), size):
            yield alike[begin : begin + size]


class _Strip:
    """The part of a mosaic under a group of windows, read as one where that is less work than one by one."""

    def __init__(self, mosaic: Readable, first: np.ndarray, past: np.ndarray):
        self._mosaic = mosaic
        self._origin, end = first.min(axis=0), past.max(axis=0)
        at_once = mosaic.cost(self._origin, end) <= mosaic.cost(first, past).sum()
        self._pixels = mosaic.window(*_window(*self._origin.tolist(), *end.tolist())) if at_once else None

    def windows(self, first: np.ndarray, span: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the windows (y, x) that begin at `first` (m, 2) x, y and are `span` (2,) long."""
        if self._pixels is None:
            for left, bottom, right, top in np.hstack([first, first + span]).tolist():
                yield self._mosaic.window(*_window(left, bottom, right, top))
            return
        first = first - self._origin
        for left, bottom, right, top in np.hstack([first, first + span]).tolist():
            yield self._pixels[bottom:top, left:right]


def _window(left: int, bottom: int, right: int, top: int) -> tuple[slice, slice]:
    """Return rows and columns from (`left`, `bottom`) to (`right`, `top`)."""
    return slice(bottom, top), slice(left, right)

"""Resampling one square of a mosaic to one stamp: pure functions, arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from catmorph.stamps.separable import Taps, axis_span, axis_start, axis_taps
from catmorph.stamps.weighing import weigh, weighted_sums

_PARALLEL = 1e-6
"""Axes count as parallel when they turn by less than this: 4e-5 stamp pixels at the edge of 80."""

_STRIP_SAMPLES = 1 << 20
"""Samples taken at a time where axes are turned: a square of 4,096 pixels has 36 million, of 50 bytes each."""

_TAPS_KEPT = 4
"""Taps of an axis that are kept: images of one size, cut alike, share theirs, which halves the time of a cut."""

Average = Callable[[np.ndarray], np.ndarray]
"""From a window of pixels (y, x) to the weighted means under the stamp's pixels (y, x), both float32."""


class Pixels(Protocol):
    """What stamps are cut from: `shape` (ny, nx) and windows of float32 with NaN where invalid."""

    shape: tuple[int, int]

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """Return pixels (y, x) within the image."""
        ...


def are_parallel(matrix: np.ndarray) -> np.ndarray:
    """Return whether the axes of stamps with such matrices (..., 2, 2) run along the mosaic's (...)."""
    size = np.abs(matrix)
    return np.maximum(size[..., 0, 1], size[..., 1, 0]) <= _PARALLEL * np.minimum(size[..., 0, 0], size[..., 1, 1])


@dataclass(frozen=True)
class Placement:
    """Where a stamp's pixel grid lies on a mosaic.

    Attributes
    ----------
    centre : (float, float)
        Mosaic pixel x, y (0-based pixel centres) under the stamp's centre ((pixels - 1) / 2 in x and y).
    matrix : array (2, 2)
        Mosaic pixels (x, y) a stamp pixel step in (x, y).
    pixels : int
        Side of the stamp.
    """

    centre: tuple[float, float]
    matrix: np.ndarray
    pixels: int

    @property
    def is_parallel(self) -> bool:
        """Whether the stamp's axes run along the mosaic's."""
        return bool(are_parallel(self.matrix))

    def reach(self) -> tuple[int, int, int, int]:
        """Return first and past-last row and column of the mosaic pixels the stamp may need."""
        if self.is_parallel:
            span = axis_span(np.diag(self.matrix), self.pixels)
            x, y = axis_start(np.array(self.centre), span).tolist()
            return y, y + int(span[1]), x, x + int(span[0])
        half = np.abs(self.matrix) @ np.full(2, self.pixels / 2)
        margin = np.maximum(np.abs(self.matrix).sum(axis=1), 1.0) + 1.0
        low = np.floor(np.array(self.centre) - half - margin).astype(int)
        high = np.ceil(np.array(self.centre) + half + margin).astype(int) + 1
        return int(low[1]), int(high[1]), int(low[0]), int(high[0])


@dataclass(frozen=True)
class Cut:
    """A stamp: `pixels` (y, x) float32 with NaN where invalid, and what share of it is invalid.

    `off_fraction` is the part of `bad_fraction` outside the mosaic; the two are equal when nothing else is bad.
    """

    pixels: np.ndarray
    bad_fraction: float
    off_fraction: float
    centre_valid: bool


def blank_cut(pixels: int) -> Cut:
    """Return what is cut where a mosaic has no valid pixel."""
    return Cut(np.full((pixels, pixels), np.nan, np.float32), 1.0, 0.0, False)


def cut_stamp(mosaic: Pixels, placement: Placement, resample: str) -> Cut:
    """Cut one stamp.

    Parameters
    ----------
    mosaic : Pixels
    placement : Placement
    resample : {"bilinear", "area"}
        ``bilinear``: a triangle filter one mosaic pixel wide on each side, or one stamp pixel where that is
        larger, so that shrinking averages (as PIL's BILINEAR). ``area``: the mean over the stamp pixel's area.

    Returns
    -------
    Cut
        Surface brightness, that is, a weighted mean of the valid mosaic pixels under each stamp pixel; NaN
        where less than half of that weight is valid. ``bad_fraction`` is the share of the weight that is
        invalid, ``off_fraction`` the part of it outside the mosaic.
    """
    window, outside, (row0, column0) = _padded_window(mosaic, placement)
    invalid = ~np.isfinite(window)
    x, y = placement.centre
    at = (int(np.floor(y + 0.5)) - row0, int(np.floor(x + 0.5)) - column0)
    centre_valid = bool(0 <= at[0] < window.shape[0] and 0 <= at[1] < window.shape[1] and not invalid[at])
    if invalid.all() and not outside.any():
        return blank_cut(placement.pixels)
    averaging = _parallel_average if placement.is_parallel else _turned_average
    average = averaging(placement, window.shape, (column0, row0), resample)
    if not invalid.any():
        return Cut(average(window), 0.0, 0.0, centre_valid)
    off = average(outside.astype(np.float32)) if outside.any() else np.float32(0)
    inside = invalid & ~outside if outside.size else invalid
    bad = average(inside.astype(np.float32)) if inside.any() else np.float32(0)
    total = average(np.where(invalid, np.float32(0), window))
    weight = 1 - (off + bad)
    with np.errstate(invalid="ignore", divide="ignore"):
        pixels = np.where(weight >= 0.5, total / weight, np.float32(np.nan)).astype(np.float32)
    off_fraction, bad_inside = (min(float(np.mean(part, dtype=np.float64)), 1.0) for part in (off, bad))
    return Cut(pixels, min(off_fraction + bad_inside, 1.0), off_fraction, centre_valid)


def _padded_window(mosaic: Pixels, placement: Placement) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return the pixels in reach, NaN outside the mosaic; where it is outside; the window's first row, column."""
    row0, row1, column0, column1 = placement.reach()
    height, width = mosaic.shape
    rows = slice(min(max(row0, 0), height), min(max(row1, 0), height))
    columns = slice(min(max(column0, 0), width), min(max(column1, 0), width))
    whole = (rows.start, rows.stop, columns.start, columns.stop) == (row0, row1, column0, column1)
    if whole:
        window = mosaic.window(rows, columns)
        return window, np.zeros((0,), dtype=bool), (row0, column0)
    window = np.full((row1 - row0, column1 - column0), np.nan, dtype=np.float32)
    outside = np.ones(window.shape, dtype=bool)
    inner = (slice(rows.start - row0, rows.stop - row0), slice(columns.start - column0, columns.stop - column0))
    if rows.stop > rows.start and columns.stop > columns.start:
        window[inner] = mosaic.window(rows, columns)
        outside[inner] = False
    return window, outside, (row0, column0)


def _parallel_average(
    placement: Placement, shape: tuple[int, ...], origin: tuple[int, int], resample: str
) -> Average:
    """Weigh rows and columns separately, which is exact for parallel axes."""
    x, y = (
        _taps(placement.pixels, placement.centre[axis] - origin[axis], float(placement.matrix[axis, axis]),
              shape[1 - axis], resample)
        for axis in (0, 1)
    )
    return lambda window: weighted_sums(window, y, x)[0]


@lru_cache(_TAPS_KEPT)
def _taps(pixels: int, centre: float, step: float, length: int, resample: str) -> Taps:
    """Return the taps (1, pixels) of one stamp."""
    return axis_taps(pixels, np.array([centre]), step, resample).placed(0, length)


def _turned_average(placement: Placement, shape: tuple[int, ...], origin: tuple[int, int], resample: str) -> Average:
    """Sample finely along the stamp's own axes (bilinear), then weigh those samples as parallel ones."""
    # A third of a second to import, for mosaics whose axes are not those of the stamps.
    from scipy.ndimage import map_coordinates

    pixels = placement.pixels
    # At most a mosaic pixel from sample to sample; 1e-9 for steps that are whole numbers but for rounding.
    over = max(1, int(np.ceil(np.linalg.norm(placement.matrix, axis=0).max() - 1e-9)))
    margin = 1 if over > 1 or resample == "area" else 0
    count = (pixels + 2 * margin) * over
    steps = (np.arange(count) - (count - 1) / 2) / over
    centre = np.array(placement.centre) - origin
    taps = axis_taps(pixels, (count - 1) / 2, float(over), resample).placed(0, count)
    strip = max(1, _STRIP_SAMPLES // count)

    def average(window: np.ndarray) -> np.ndarray:
        narrowed = np.empty((count, pixels), dtype=np.float32)
        for first in range(0, count, strip):
            along = steps[first : first + strip, None]
            x, y = (centre[axis] + placement.matrix[axis, 0] * steps + placement.matrix[axis, 1] * along
                    for axis in (0, 1))
            fine = map_coordinates(window, [y, x], order=1, mode="nearest", prefilter=False)
            narrowed[first : first + strip] = weigh(fine.astype(np.float32, copy=False).T, taps).T
        return weigh(narrowed, taps)

    return average

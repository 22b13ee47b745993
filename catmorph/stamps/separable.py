"""Resampling along one axis of a mosaic: which pixels a stamp needs, and their weights.

Every function takes one stamp or many. All is element by element, so that what comes out for a stamp does not depend on
the others, bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from catmorph.stamps import compiled


class Taps(NamedTuple):
    """The pixels of one axis that stamps are weighted sums of.

    Attributes
    ----------
    first : intp array (..., pixels)
        The first one of every stamp pixel.
    weights : float32 array (tap, ..., pixels)
        Of that one and those that follow, for every stamp pixel; they sum to 1.
    """

    first: np.ndarray
    weights: np.ndarray

    def of(self, stamp: int) -> Taps:
        """Return those of one stamp of several."""
        return Taps(self.first[stamp], self.weights[:, stamp])

    def placed(self, start: np.ndarray | int, length: int) -> Taps:
        """Return the same sums on an axis of `length` pixels on which those counted here begin at `start` (...).

        Taps that lie beyond it, which must have no weight, are moved to within.
        """
        first = self.first + np.asarray(start)[..., None]
        if not first.size or (first.min() >= 0 and first.max() + len(self.weights) <= length):
            return Taps(first, self.weights)
        taps = np.arange(min(len(self.weights), length)).reshape(-1, *(1,) * first.ndim)
        moved = np.clip(first, 0, length - len(taps))
        before = moved - first + taps
        known = (before >= 0) & (before < len(self.weights))
        weights = np.where(known, np.take_along_axis(self.weights, np.where(known, before, 0), axis=0), np.float32(0))
        return Taps(moved, weights)


def axis_span(step: np.ndarray, pixels: int) -> np.ndarray:
    """Return the length (...) of the window of mosaic pixels under a stamp of `pixels`, `step` mosaic pixels each.

    It holds every pixel of weight, wherever in its pixel the centre lies, and depends on the step alone.
    """
    size = np.abs(step)
    return np.ceil(size * (pixels - 1) + 2 * np.maximum(size, 1.0) + 2).astype(int)


def axis_start(centre: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Return the first pixel (...) of the window of length `span` around `centre` (0-based pixel centres)."""
    return np.ceil(centre - np.asarray(span) / 2).astype(int)


def axis_taps(pixels: int, centre: np.ndarray | float, step: np.ndarray | float, resample: str) -> Taps:
    """Return which pixels of one axis, and with what weights, make stamp pixels (..., pixels).

    Parameters
    ----------
    pixels : int
        Stamp pixels.
    centre : array (...) or float
        Pixel (0-based centre) under the stamp's centre.
    step : array (...) or float
        Pixels a stamp pixel; negative where the axis runs backwards.
    resample : {"bilinear", "area"}
    """
    step = np.asarray(step, float)
    positions = np.asarray(centre, float)[..., None] + step[..., None] * (np.arange(pixels) - (pixels - 1) / 2)
    # Overlap of the unit pixel with the stamp pixel's interval, which is at least a point wide; or a triangle.
    size, is_area = np.abs(step), resample == "area"
    half = np.maximum(size, 1e-9) / 2 if is_area else np.maximum(size, 1.0)
    reach = half + 0.5 if is_area else half
    first = np.floor(positions - reach[..., None])
    count = int(np.ceil(2 * reach.max(initial=0.5))) + 1
    return Taps(first.astype(np.intp), _weights(first - positions, half, is_area, count))


def _weights(distance: np.ndarray, half: np.ndarray, is_area: bool, count: int) -> np.ndarray:
    """Return the weights (tap, ..., pixels) of pixels at a `distance` (..., pixels), of those 1 on, and so forth.

    Of intervals, or triangles, of `half` (...) a length to each side.
    """
    weights = np.empty((count, *distance.shape), np.float32)
    half = np.broadcast_to(half[..., None], distance.shape).copy()
    if compiled.kernel:
        compiled.kernel.tap_weights(distance.ravel(), half.ravel(), is_area, weights.reshape(count, -1))
        return weights
    heights = np.empty(weights.shape)
    for tap in range(count):
        (_overlap if is_area else _triangle)(distance, half, heights[tap])
        distance = distance + 1
    total = np.zeros(distance.shape)
    for height in heights:  # one by one: numpy adds up short axes in an order of its own
        total += height
    weights[:] = heights * (1 / total)
    return weights


def _triangle(distance: np.ndarray, half: np.ndarray, out: np.ndarray) -> None:
    """Set `out` to the height at a `distance` of triangles, 1 in the middle and 0 from `half` on."""
    np.divide(distance, half, out=out)
    np.abs(out, out=out)
    np.subtract(1.0, out, out=out)
    np.maximum(out, 0.0, out=out)


def _overlap(distance: np.ndarray, half: np.ndarray, out: np.ndarray) -> None:
    """Set `out` to what unit pixels at a `distance` share with intervals of `half` a length to each side."""
    np.minimum(distance + 0.5, half, out=out)
    out -= np.maximum(distance - 0.5, -half)
    np.maximum(out, 0.0, out=out)

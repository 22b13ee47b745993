"""Resampling along one axis of a mosaic: which pixels a stamp needs, and their weights.

Every function takes one stamp or many. All is element by element, so that what comes out for a stamp does not depend on
the others, bit for bit.
"""

from __future__ import annotations

import numpy as np

SPAN_STEP = 8
"""Windows are a multiple of this many pixels long, so that many stamps have windows of one shape."""


def axis_span(step: np.ndarray, pixels: int) -> np.ndarray:
    """Return the length (...) of the window of mosaic pixels under a stamp of `pixels`, `step` mosaic pixels each.

    It holds every pixel of weight, wherever in its pixel the centre lies, and depends on the step alone.
    """
    size = np.abs(step)
    needed = size * (pixels - 1) + 2 * np.maximum(size, 1.0) + 2
    return (np.ceil(needed / SPAN_STEP) * SPAN_STEP).astype(int)


def axis_start(centre: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Return the first pixel (...) of the window of length `span` around `centre` (0-based pixel centres)."""
    return np.ceil(centre - np.asarray(span) / 2).astype(int)


def axis_weights(
    pixels: int, centre: np.ndarray | float, step: np.ndarray | float, length: int, resample: str
) -> np.ndarray:
    """Return weights (..., pixels, length), rows summing to 1, of window pixels for stamp pixels along one axis.

    Parameters
    ----------
    pixels : int
        Stamp pixels.
    centre : array (...) or float
        Window pixel (0-based centre) under the stamp's centre.
    step : array (...) or float
        Window pixels a stamp pixel; negative where the axis runs backwards.
    length : int
        Window pixels.
    resample : {"bilinear", "area"}

    Returns
    -------
    array, float32
        Zero beyond the window, whose pixels share the whole weight.
    """
    centre, step = np.broadcast_arrays(np.asarray(centre, float), np.asarray(step, float))
    positions = centre[..., None] + step[..., None] * (np.arange(pixels) - (pixels - 1) / 2)
    size = np.abs(step)[..., None]
    # Overlap of the unit pixel with the stamp pixel's interval, which is at least a point wide; or a triangle.
    half = np.maximum(size, 1e-9) / 2 if resample == "area" else np.maximum(size, 1.0)
    reach = half + 0.5 if resample == "area" else half
    taps = int(np.ceil(2 * reach.max(initial=0.5))) + 1  # integers from floor(p - reach) to p + reach
    at = np.floor(positions - reach)[..., None] + np.arange(taps)
    distance = np.abs(at - positions[..., None])
    if resample == "area":
        edge = half[..., None]
        weights = np.maximum(np.minimum(distance + 0.5, edge) - np.maximum(distance - 0.5, -edge), 0.0)
    else:
        weights = np.maximum(1.0 - distance / half[..., None], 0.0)
    weights *= (at >= 0) & (at < length)
    # In the order of the pixels: a sum over an axis may be taken in another order for another number of stamps.
    total = weights[..., 0].copy()
    for tap in range(1, taps):
        total += weights[..., tap]
    weights /= np.where(total > 0, total, 1.0)[..., None]
    return _dense(weights, at, length)


def _dense(weights: np.ndarray, at: np.ndarray, length: int) -> np.ndarray:
    """Return the `weights` (..., pixels, taps) of the window pixels `at` as rows (..., pixels, length)."""
    dense = np.zeros((*weights.shape[:-1], length), np.float32)
    kept = weights > 0
    row = np.arange(dense.size // length).reshape(*weights.shape[:-1], 1) * length
    dense.reshape(-1)[(at.astype(np.intp) + row)[kept]] = weights[kept]
    return dense

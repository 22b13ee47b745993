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
    pixels: int, centre: np.ndarray | float, step: np.ndarray | float, length: int, resample: str, *,
    columns: bool = False,
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
    columns : bool
        Return them transposed (..., length, pixels), as the right-hand factor of a product.

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
    first = np.floor(positions - reach)
    # Tap by tap: integers from floor(p - reach) to p + reach, for all stamps at once.
    taps = int(np.ceil(2 * reach.max(initial=0.5))) + 1
    weights = np.empty((taps, *positions.shape))
    for tap in range(taps):
        distance = np.abs(first + tap - positions)
        weights[tap] = _overlap(distance, half) if resample == "area" else np.maximum(1.0 - distance / half, 0.0)
    if first.size and (first.min() < 0 or first.max() + taps > length):
        at = first + np.arange(taps).reshape(-1, *(1,) * first.ndim)
        weights *= (at >= 0) & (at < length)
    total = weights[0].copy()
    for tap in range(1, taps):
        total += weights[tap]
    weights /= np.where(total > 0, total, 1.0)
    return _dense(weights.astype(np.float32), first, length, columns)


def _overlap(distance: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return what unit pixels at a `distance` share with intervals of `half` a length to each side."""
    return np.maximum(np.minimum(distance + 0.5, half) - np.maximum(distance - 0.5, -half), 0.0)


def _dense(weights: np.ndarray, first: np.ndarray, length: int, columns: bool) -> np.ndarray:
    """Return `weights` (tap, ..., pixels), of window pixels from `first` (..., pixels) on, as (..., pixels, length).

    Or as `columns` (..., length, pixels). The taps beyond the window, whose weights are zero, have room beside it.
    """
    taps, room = len(weights), length + 2 * len(weights)
    at = np.clip(first, -taps, length).astype(np.intp) + taps
    pixels = first.shape[-1]
    stamp = np.arange(first.size // pixels).reshape(*first.shape[:-1], 1) * (room * pixels)
    pixel = np.arange(pixels)
    place, step = (stamp + at * pixels + pixel, pixels) if columns else (stamp + pixel * room + at, 1)
    dense = np.zeros(first.size * room, np.float32)
    for tap in range(taps):
        dense[place + tap * step] = weights[tap]
    if columns:
        return dense.reshape(*first.shape[:-1], room, pixels)[..., taps : taps + length, :]
    return dense.reshape(*first.shape, room)[..., taps : taps + length]

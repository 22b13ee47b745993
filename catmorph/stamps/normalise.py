"""Stamps to network inputs: each stamp and channel is scaled by its own pixels alone.

A stamp's result is the same bits whatever else is in the array: everything here is either elementwise, an
order statistic, or a minimum or maximum along the stamp's own pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from catmorph.recipe import NormaliseSection

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

BLOCK = 64
"""Channels scaled together: the temporaries stay in the processor's cache, and memory is bounded."""


def normalise(stamps: np.ndarray, section: NormaliseSection) -> np.ndarray:
    """Turn stamps into what the network sees.

    Invalid pixels are filled first, with the channel's own median or minimum (of valid pixels), or zero;
    the scaling is measured on valid pixels only and then applied to all. A channel without a valid pixel, or
    whose valid pixels are all equal, becomes 0 wherever the method divides by a range.

    Parameters
    ----------
    stamps : ndarray of float32, shape (n, channel, y, x)
        NaN (or infinity) where a pixel is invalid.
    section : NormaliseSection
        Method, its options, and the fill.

    Returns
    -------
    ndarray of float32, shape (n, channel, y, x)
        Finite throughout.
    """
    stamps = np.asarray(stamps, dtype=np.float32)
    result = np.empty(stamps.shape, dtype=np.float32)
    pixels = stamps.reshape(-1, stamps.shape[-2] * stamps.shape[-1])
    flat = result.reshape(pixels.shape)
    for start in range(0, len(pixels), BLOCK):
        flat[start : start + BLOCK] = _normalise_rows(pixels[start : start + BLOCK], section)
    return result


def _normalise_rows(rows: np.ndarray, section: NormaliseSection) -> np.ndarray:
    """Scale rows (channel of a stamp, pixel) of float32, NaN or infinite where invalid."""
    valid = np.isfinite(rows)
    bad = ~valid.all(axis=1)
    # Sorted rows give minimum, median and percentiles at once; NaN sorts last.
    ordered = np.sort(np.where(valid, rows, np.float32(np.nan)) if bad.any() else rows, axis=1)
    count = valid.sum(axis=1)
    filled = rows
    if bad.any():
        filled = np.where(valid, rows, _fill_values(ordered, count, section.fill)[:, None])
    return METHODS[section.method](filled, ordered, count, valid, section)


def _fill_values(ordered: np.ndarray, count: np.ndarray, fill: str) -> np.ndarray:
    if fill == "median":
        return _at(ordered, count, 50.0)
    if fill == "minimum":
        return _at(ordered, count, 0.0)
    return np.zeros(len(ordered), dtype=np.float32)


def _at(ordered: np.ndarray, count: np.ndarray, percentile: float) -> np.ndarray:
    """Return a percentile of each row's first `count` (sorted) values, linearly interpolated; 0 for none."""
    position = np.maximum(count - 1, 0) * (percentile / 100.0)
    below = np.floor(position).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    row = np.arange(len(ordered))
    low, high = ordered[row, below].astype(np.float64), ordered[row, above].astype(np.float64)
    value = low + (position - below) * (high - low)
    return np.where(count > 0, value, 0.0).astype(np.float32)


def _none(
    filled: np.ndarray, ordered: np.ndarray, count: np.ndarray, valid: np.ndarray, section: NormaliseSection
) -> np.ndarray:
    return filled


def _minmax(
    filled: np.ndarray, ordered: np.ndarray, count: np.ndarray, valid: np.ndarray, section: NormaliseSection
) -> np.ndarray:
    return _between(filled, _at(ordered, count, 0.0), _at(ordered, count, 100.0))


def _bytescale(
    filled: np.ndarray, ordered: np.ndarray, count: np.ndarray, valid: np.ndarray, section: NormaliseSection
) -> np.ndarray:
    # scipy.misc.bytescale, which the authors of the CLASH catalog used: 255 steps, rounded half up. They did it before
    # the resize and stretched the result to 0..1 again: the same within 2/255.
    scaled = _minmax(filled, ordered, count, valid, section)
    return np.floor(scaled * np.float32(255) + np.float32(0.5)) / np.float32(255)


def _percentile(
    filled: np.ndarray, ordered: np.ndarray, count: np.ndarray, valid: np.ndarray, section: NormaliseSection
) -> np.ndarray:
    return _between(filled, _at(ordered, count, section.low), _at(ordered, count, section.high))


def _asinh(
    filled: np.ndarray, ordered: np.ndarray, count: np.ndarray, valid: np.ndarray, section: NormaliseSection
) -> np.ndarray:
    median = _at(ordered, count, 50.0)
    deviation = np.sort(np.abs(ordered - median[:, None]), axis=1)
    noise = MAD_TO_SIGMA * _at(deviation, count, 50.0).astype(np.float64)
    # More than half of the pixels equal: the range stands in for the noise.
    spread = _at(deviation, count, 100.0).astype(np.float64)
    unit = (section.softening * np.where(noise > 0, noise, spread)).astype(np.float32)
    stretched = np.arcsinh((filled - median[:, None]) / np.where(unit > 0, unit, 1)[:, None])
    peak = np.max(stretched, axis=1, where=valid, initial=0)
    return stretched / np.where(peak > 0, peak, 1).astype(np.float32)[:, None]


def _between(filled: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Map low..high of each row to 0..1, clipped; rows without a range become 0."""
    # In float64: the difference of two float32 extremes can overflow.
    span = high.astype(np.float64) - low
    scaled = (filled.astype(np.float64) - low[:, None]) / np.where(span > 0, span, 1.0)[:, None]
    return np.where(span[:, None] > 0, np.clip(scaled, 0.0, 1.0), 0.0).astype(np.float32)


METHODS: dict[str, Callable[..., np.ndarray]] = {
    "none": _none,
    "minmax": _minmax,
    "bytescale": _bytescale,
    "percentile": _percentile,
    "asinh": _asinh,
}
"""Method name -> function of (filled rows, sorted rows, valid counts, valid pixels, section)."""

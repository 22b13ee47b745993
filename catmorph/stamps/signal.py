"""A quick signal-to-noise ratio of stamps, for flags and summaries."""

from __future__ import annotations

from functools import cache

import numpy as np

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@cache
def _masks(side: int) -> tuple[np.ndarray, np.ndarray]:
    offset = np.arange(side) - (side - 1) / 2
    radius = np.hypot(offset[:, None], offset[None, :])
    low, high = _edges(side)
    border = np.ones((side, side), dtype=bool)
    border[low:high, low:high] = False
    return np.flatnonzero(radius <= max(side / 8, 1.0)), np.flatnonzero(border)


def _edges(side: int) -> tuple[int, int]:
    """Return the first and the past-last row (and column) between the borders, a tenth of the side wide."""
    edge = max(1, side // 10)
    return edge, max(edge, side - edge)


def signal_to_noise(pixels: np.ndarray) -> float:
    """Return the signal-to-noise ratio of a stamp (y, x), NaN pixels left out.

    The flux above the border's median within a circle of an eighth of the side, over the border's scatter
    (1.4826 x its median absolute deviation) times the root of the number of pixels. Resampling correlates
    neighbouring pixels, so it is a ranking, not a calibrated ratio. NaN where border or circle is empty.
    """
    flat = pixels.ravel()
    circle, border = _masks(pixels.shape[0])
    inner, outer = flat[circle], flat[border]
    inner, outer = inner[np.isfinite(inner)], outer[np.isfinite(outer)]
    if not inner.size or not outer.size:
        return float("nan")
    return float(_ratio(inner[None], outer[None])[0])


def signals_to_noise(stamps: np.ndarray) -> np.ndarray:
    """Return the signal-to-noise ratio (n,) of each of n stamps (n, y, x) of finite pixels; see `signal_to_noise`."""
    circle, _ = _masks(stamps.shape[-1])
    return _ratio(np.take(_flat(stamps), circle, axis=1), _border(stamps))


def _border(stamps: np.ndarray) -> np.ndarray:
    """Return the border's pixels (n, o) of stamps (n, y, x), in any order; strips are taken faster than by index."""
    side = stamps.shape[-1]
    low, high = _edges(side)
    strips = stamps[:, :low], stamps[:, high:], stamps[:, low:high, :low], stamps[:, low:high, high:]
    return np.concatenate([_flat(strip) for strip in strips], axis=1)


def _flat(stamps: np.ndarray) -> np.ndarray:
    return stamps.reshape(len(stamps), stamps.shape[1] * stamps.shape[2])


def _ratio(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Return the ratio (n,) of pixels in the circle (n, i) and the border (n, o), which are overwritten."""
    sky = _medians(outer)
    outer -= sky.astype(np.float32)[:, None]
    noise = MAD_TO_SIGMA * _medians(np.abs(outer, out=outer))
    count = inner.shape[1]
    # Each row is summed by itself: converted first, so that no buffer of numpy's cuts rows where it likes.
    flux = inner.astype(np.float64).sum(axis=1) - sky * count
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = flux / (noise * np.sqrt(count))
    return np.where(noise > 0, ratio, np.where(flux == 0, 0.0, np.copysign(np.inf, flux)))


def _medians(values: np.ndarray) -> np.ndarray:
    """Return the medians (n,) of rows (n, o), float64; puts the values of each row in another order."""
    middle = values.shape[1] // 2
    values.partition(middle, axis=1)
    high = values[:, middle]
    low = high if values.shape[1] % 2 else values[:, :middle].max(axis=1)
    return (low.astype(np.float64) + high.astype(np.float64)) / 2

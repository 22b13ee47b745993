"""A quick signal-to-noise ratio of stamps, for flags and summaries."""

from __future__ import annotations

from functools import cache

import numpy as np

_MAD_TO_SIGMA = 1.4826


@cache
def _masks(side: int) -> tuple[np.ndarray, np.ndarray]:
    offset = np.arange(side) - (side - 1) / 2
    radius = np.hypot(offset[:, None], offset[None, :])
    edge = max(1, side // 10)
    border = np.ones((side, side), dtype=bool)
    border[edge:-edge, edge:-edge] = False
    return np.flatnonzero(radius <= max(side / 8, 1.0)), np.flatnonzero(border)


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
    circle, border = _masks(stamps.shape[-1])
    flat = stamps.reshape(len(stamps), stamps.shape[-1] ** 2)
    return _ratio(np.take(flat, circle, axis=1), np.take(flat, border, axis=1))


def _ratio(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Return the ratio (n,) of pixels in the circle (n, i) and the border (n, o)."""
    outer.sort(axis=1)
    sky = _middle(outer)
    noise = _MAD_TO_SIGMA * _median_deviation(outer, sky)
    count = inner.shape[1]
    # Each row is summed by itself: converted first, so that no buffer of numpy's cuts rows where it likes.
    flux = inner.astype(np.float64).sum(axis=1) - sky * count
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = flux / (noise * np.sqrt(count))
    return np.where(noise > 0, ratio, np.where(flux == 0, 0.0, np.copysign(np.inf, flux)))


def _middle(ordered: np.ndarray) -> np.ndarray:
    """Return the medians (n,) of rows (n, o) in rising order, float64."""
    count = ordered.shape[1]
    low, high = ordered[:, (count - 1) // 2].astype(np.float64), ordered[:, count // 2].astype(np.float64)
    return (low + high) / 2


def _median_deviation(ordered: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the median absolute deviations (n,) of rows (n, o) in rising order from their `centre` (n,).

    The k values nearest to the centre are neighbours in the order: the k-th smallest deviation is the least, over the
    runs of k values, of the larger of the deviations of a run's two ends. So nothing is sorted again.
    """
    deviation = np.abs(ordered - centre.astype(np.float32)[:, None])
    count = ordered.shape[1]
    ranks = {(count - 1) // 2 + 1, count // 2 + 1}
    least = [
        np.maximum(deviation[:, : count - rank + 1], deviation[:, rank - 1 :]).min(axis=1).astype(np.float64)
        for rank in ranks
    ]
    return sum(least) / len(least)

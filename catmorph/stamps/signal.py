"""A quick signal-to-noise ratio of a stamp, for flags and summaries."""

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
    sky = _median(outer)
    noise = _MAD_TO_SIGMA * _median(np.abs(outer - np.float32(sky)))
    flux = float(inner.sum(dtype=np.float64)) - sky * inner.size
    return flux / (noise * np.sqrt(inner.size)) if noise > 0 else float(np.copysign(np.inf, flux)) if flux else 0.0


def _median(values: np.ndarray) -> float:
    # A third of the time of np.median on a stamp's border.
    middle = values.size // 2
    if values.size % 2:
        return float(np.partition(values, middle)[middle])
    low, high = np.partition(values, (middle - 1, middle))[middle - 1 : middle + 1]
    return (float(low) + float(high)) / 2

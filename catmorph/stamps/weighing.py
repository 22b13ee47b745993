"""Stamps as weighted sums of pixels along two axes: by compiled code, or by NumPy where there is none.

Both give the same bits (but for what kind of NaN): the products are added one by one, in order, in single precision.
"""

from __future__ import annotations

import numpy as np

from catmorph.stamps import compiled
from catmorph.stamps.separable import Taps


def weighted_sums(pixels: np.ndarray, y: Taps, x: Taps) -> np.ndarray:
    """Return n stamps (n, y, x) of float32: weighted sums of `pixels` (y, x) along y, then along x.

    Parameters
    ----------
    pixels : float32 array (ny, nx)
        What the stamps are cut from. NaN where a stamp pixel has a tap, of any weight, makes it NaN.
    y, x : Taps
        Of n stamps of equal sides, within `pixels`.
    """
    stamps = np.empty((*y.first.shape, x.first.shape[1]), np.float32)
    if compiled.kernel:
        compiled.kernel.weighted_sums(_rows(pixels), y.first, y.weights, x.first, x.weights, stamps)
        return stamps
    for stamp, out in enumerate(stamps):
        across = x.of(stamp)
        left, right = int(across.first.min()), int(across.first.max()) + len(across.weights)
        narrowed = weigh(pixels[:, left:right], y.of(stamp))
        out[:] = weigh(narrowed.T, Taps(across.first - left, across.weights)).T
    return stamps


def weigh(values: np.ndarray, taps: Taps) -> np.ndarray:
    """Return weighted sums (pixel, k) of the rows of `values` (length, k), float32, for one stamp's taps."""
    total = np.zeros((len(taps.first), values.shape[1]), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for tap, weights in enumerate(taps.weights):
            rows = values[taps.first + tap]
            rows *= weights[:, None]
            total += rows
    return total


def _rows(pixels: np.ndarray) -> np.ndarray:
    """Return the pixels with the values of a row one after another, copied where they are not."""
    in_rows = pixels.strides[1] == pixels.itemsize and pixels.flags.aligned
    return pixels if in_rows else np.require(pixels, requirements=["ALIGNED", "C_CONTIGUOUS"])

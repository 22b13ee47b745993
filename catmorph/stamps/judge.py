"""What the pixels of a stamp say of its quality."""

from __future__ import annotations

import numpy as np

from catmorph.quality import Flag
from catmorph.stamps.cut import Cut
from catmorph.stamps.settings import StampSettings

_FLAT = 1e-6
"""Values that differ by less than this share are the same: float32 weights sum to 1 within 3e-7."""


def are_flat(stamps: np.ndarray) -> np.ndarray:
    """Return which stamps (n, y, x) have the same value in all pixels, or a value that is not finite (n,)."""
    low, high = (extreme(axis=(1, 2)).astype(np.float64) for extreme in (stamps.min, stamps.max))
    with np.errstate(invalid="ignore"):
        return ~(high - low > _FLAT * np.maximum(np.abs(low), np.abs(high)))


def judge(cut: Cut, stamp: StampSettings) -> Flag:
    """Return the flags of one channel of a stamp."""
    flags = Flag(0)
    if cut.off_fraction > 0:
        flags |= Flag.EDGE
    if cut.bad_fraction > cut.off_fraction:
        flags |= Flag.SOME_BAD_PIXELS
    if cut.bad_fraction > stamp.max_bad_fraction:
        return flags | (Flag.BAD_PIXELS if cut.centre_valid else Flag.NO_DATA)
    valid = cut.pixels[np.isfinite(cut.pixels)]
    if not valid.size:
        return flags | Flag.NO_DATA
    low, high = float(valid.min()), float(valid.max())
    return flags | Flag.FLAT if high - low <= _FLAT * max(abs(low), abs(high)) else flags

"""Independent random streams, one for each name, so that no result depends on order or workers."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *key: object) -> np.random.Generator:
    """Return the random stream of `key`, for example ``(field, source, band, purpose)``.

    Streams of different keys are independent; the same seed and key give the same numbers on every
    machine (each part of the key enters as its CRC-32, Python's own hash being salted).
    """
    words = [zlib.crc32(str(part).encode()) for part in key]
    return np.random.default_rng(np.random.SeedSequence([seed, len(words), *words]))

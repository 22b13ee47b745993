"""Which row of a stamp is the top one when it is drawn: `stamps.images.top_first` says so of a file, shards keep it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TopFirst = bool | Sequence[bool] | np.ndarray
"""Whether the first row of pixels is the top one: of all channels, or of each."""


def upright(stamp: np.ndarray, top_first: TopFirst) -> np.ndarray:
    """Return a stamp (channel, y, x) with the bottom row first in every channel, as pictures of the sky are drawn."""
    turned = np.broadcast_to(np.asarray(top_first, dtype=bool), len(stamp))
    return np.where(turned[:, None, None], stamp[:, ::-1], stamp) if turned.any() else stamp

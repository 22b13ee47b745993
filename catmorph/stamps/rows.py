"""The rows of a shard as they come together."""

from __future__ import annotations

import numpy as np

from catmorph.quality import Flag
from catmorph.stamps.band import Band
from catmorph.stamps.settings import StampSettings
from catmorph.stamps.store import ShardContent


class Rows:
    """What is known of the n sources of a chunk in a view; see `ShardContent` for the arrays.

    Attributes
    ----------
    kept : bool array (n,)
        Which sources have a stamp.
    settled : bool array (n,)
        Of which sources all is known: those, and some that cannot have one.
    stamps : float32 array (n, channel, y, x)
        Of those that are kept; others are not set.
    """

    def __init__(self, stamp: StampSettings, bands: list[Band], count: int):
        channels = len(bands)
        self._stamp, self._bands = stamp, bands
        self.flags = np.zeros(count, np.uint32)
        self.kept = np.zeros(count, bool)
        self.settled = np.zeros(count, bool)
        self.bad_fraction = np.full(count, np.nan, np.float32)
        self.signal = np.full(count, np.nan, np.float32)
        self.centre = np.full((count, channels, 2), np.nan)
        self.pixel_scale = np.full((count, channels), np.nan, np.float32)
        self.mosaic = np.full((count, channels), -1, np.int16)
        self.axes = np.full((count, 2, 2), np.nan)
        # Pages that are never written take no memory.
        self.stamps = np.empty((count, channels, stamp.pixels, stamp.pixels), np.float32)

    def note_place(self, source: int | np.ndarray, channel: int, tile: int) -> None:
        """Note where a source, or several, lie in a band: on a tile of it."""
        before = sum(len(band.files) for band in self._bands[:channel])
        grid = self._bands[channel].grid(tile)
        self.centre[source, channel] = grid.centre[source]
        self.pixel_scale[source, channel] = grid.pixel_scale[source]
        self.mosaic[source, channel] = before + tile

    def content(self, ids: list[str]) -> ShardContent:
        """Return the shard's content."""
        if self._stamp.min_signal is not None:
            self.flags[self.kept & ~(self.signal >= self._stamp.min_signal)] |= np.uint32(Flag.LOW_SIGNAL)
        rows = np.where(self.kept, np.cumsum(self.kept) - 1, -1).astype(np.int32)
        return ShardContent(
            ids=ids, flags=self.flags, rows=rows, bad_fraction=self.bad_fraction, signal=self.signal,
            centre=self.centre, pixel_scale=self.pixel_scale, mosaic=self.mosaic,
            stamps=self.stamps if self.kept.all() else self.stamps[self.kept],
            mosaics=[tile.name for band in self._bands for tile in band.files], axes=self.axes,
        )

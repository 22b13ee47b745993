"""The sources of a chunk that need no second thought, cut at once.

Such a source lies on a mosaic in every band, its stamp whole and without an invalid pixel on the first choice of them,
along their axes; or, in a view of one band, on one mosaic that has no valid pixel there. Every other one is left to
`catmorph.stamps.block`, which looks at sources one by one; both give the same stamps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from catmorph.stamps.band import Band
from catmorph.stamps.cut import are_parallel, blank_cut
from catmorph.stamps.judge import are_flat, judge
from catmorph.stamps.placing import NORTH_UP, area, frame_of, stamp_matrix
from catmorph.stamps.rows import Rows
from catmorph.stamps.settings import StampSettings
from catmorph.stamps.signal import signals_to_noise
from catmorph.stamps.whole import ParallelStamps


def keep_whole(rows: Rows, stamp: StampSettings, bands: list[Band], sides: np.ndarray) -> None:
    """Cut the sources that need no second thought, and keep their stamps, or why they have none, in `rows`.

    Parameters
    ----------
    rows : Rows
    stamp : StampSettings
    bands : list of Band
    sides : array (source,)
        Arcsec; NaN where a side takes a second thought.
    """
    first = np.stack([band.first_tiles for band in bands])
    good = (first >= 0).all(axis=0) & (sides > 0)
    signal = np.full(len(sides), -np.inf)
    frames = np.full((len(sides), 2, 2), np.nan)
    for channel, band in enumerate(bands):
        cut = np.zeros(len(good), bool)
        for tile in np.unique(first[channel, good]).tolist():
            chosen = np.flatnonzero(good & (first[channel] == tile))
            if channel == 0:
                frames[chosen] = frame_of(band.grid(tile), chosen)
            view = _View(stamp, band, tile, chosen, sides[chosen], frames[chosen] if channel else None)
            for some, pixels in view.stamps():
                rows.stamps[some, channel] = pixels
                signal[some] = np.maximum(signal[some], signals_to_noise(pixels))
                cut[some] = True
            if len(bands) == 1:
                _note_blank(rows, stamp, band, tile, np.array(view.blank, int))
        good &= cut
    kept = np.flatnonzero(good)
    for channel in range(len(bands)):
        for tile in np.unique(first[channel, kept]).tolist():
            rows.note_place(kept[first[channel, kept] == tile], channel, tile)
    rows.kept[kept] = rows.settled[kept] = True
    rows.bad_fraction[kept] = 0
    rows.signal[kept] = signal[kept]
    turned = NORTH_UP if stamp.orientation == "north" else frames[kept]
    rows.axes[kept] = turned * (sides[kept] / stamp.pixels)[:, None, None]


def _note_blank(rows: Rows, stamp: StampSettings, band: Band, tile: int, sources: np.ndarray) -> None:
    """Note why sources whose windows hold no valid pixel have no stamp, unless another tile may give one."""
    blank = sources[band.tile_counts[sources] == 1]
    rows.note_place(blank, 0, tile)
    rows.flags[blank] |= np.uint32(judge(blank_cut(stamp.pixels), stamp))
    rows.settled[blank] = True


class _View:
    """One tile of a band and the sources that are cut from it; those without a valid pixel end in `blank`."""

    def __init__(self, stamp: StampSettings, band: Band, tile: int, sources: np.ndarray, sides: np.ndarray,
                 frames: np.ndarray | None):
        grid = band.grid(tile)
        native = sides / grid.pixel_scale[sources]
        fit = (stamp.min_side_pixels <= native) & (native <= stamp.max_side_pixels)
        sources, sides, frames = sources[fit], sides[fit], None if frames is None else frames[fit]
        matrix = stamp_matrix(stamp, grid, sources, frames, sides / stamp.pixels)
        parallel = are_parallel(matrix)
        self._stamp, self._band, self._tile = stamp, band, tile
        self._sources, self._matrix = sources[parallel], matrix[parallel]
        self._centre = grid.centre[self._sources]
        self.blank: list[int] = []

    def stamps(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield sources (m,) and their stamps (m, y, x), which have no flag."""
        steps = self._matrix[:, (0, 1), (0, 1)]
        stamps = ParallelStamps(self._centre, steps, self._stamp.pixels)
        for rows, pixels, blank in self._band.cut_whole(self._tile, stamps, self._stamp.resample):
            self.blank += self._sources[rows[blank]].tolist()
            if self._stamp.values == "flux":
                pixels *= area(self._matrix[rows])[:, None, None]
            clean = ~are_flat(pixels)
            yield self._sources[rows[clean]], pixels if clean.all() else pixels[clean]

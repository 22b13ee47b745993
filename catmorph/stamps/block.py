"""`cut_block`: from a plan (which mosaics, what geometry) and source positions to a block of stamps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from catmorph.errors import MosaicError
from catmorph.patience import may_pass, patiently
from catmorph.quality import BLOCKING, Flag
from catmorph.recipe import StampSection
from catmorph.stamps.cut import Cut, Placement, cut_stamp
from catmorph.stamps.pixels import ImageFiles, Mosaic
from catmorph.stamps.signal import signal_to_noise
from catmorph.stamps.sky import LocalGrid, locate
from catmorph.stamps.store import ShardContent

_FLAT = 1e-6
"""Values that differ by less than this share are the same: float32 weights sum to 1 within 3e-7."""


@dataclass(frozen=True)
class BlockPlan:
    """What decides the stamps of a chunk besides its sources.

    Attributes
    ----------
    mosaics : tuple (band) of tuple (tile) of ImageFiles
    reference : tuple (tile) of ImageFiles, or None
        Mosaics whose pixels count for a side in pixels (none of them: no stamp); None: the view's own first band's.
    stamp : StampSection
    """

    mosaics: tuple[tuple[ImageFiles, ...], ...]
    reference: tuple[ImageFiles, ...] | None
    stamp: StampSection


class _Band:
    """The tiles of one band, the place of each source on them, and why a tile failed."""

    def __init__(self, tiles: tuple[ImageFiles, ...], ra: np.ndarray, dec: np.ndarray):
        self.files = tiles
        self.mosaics: list[Mosaic | None] = []
        self.grids: list[LocalGrid | None] = []
        self.failures: list[tuple[str, str]] = []
        self._given_up: set[int] = set()
        margin = [self._open(tile, ra, dec) for tile in tiles]
        self._margin = np.array(margin).reshape(len(tiles), len(ra))
        self._absence = Flag.OFF_IMAGE if tiles else Flag.NO_MOSAIC
        if None in self.grids:
            self._absence = Flag.UNREADABLE

    def _open(self, tile: ImageFiles, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Open a tile, keep it open if it holds a source, and return how far inside the sources are."""
        mosaic, grid, margin = None, None, np.full(len(ra), -np.inf)
        try:
            mosaic = patiently(lambda: Mosaic(tile))
        except MosaicError as error:
            self.fail(tile, error)
        if mosaic:
            grid = locate(mosaic.wcs, ra, dec)
            margin = _edge_distance(mosaic, grid)
            if not (margin >= 0).any():
                # A field may have more tiles than a process may have open files.
                mosaic.close()
                mosaic = None
        self.mosaics.append(mosaic)
        self.grids.append(grid)
        return margin

    def fail(self, tile: ImageFiles, error: MosaicError) -> None:
        """Note that a tile, or its weight or flag map, could not be read."""
        failure = (os.path.basename(str(error.where or tile.image)), error.message)
        if failure not in self.failures:
            self.failures.append(failure)

    def cut(self, tile: int, placement: Placement, resample: str) -> Cut:
        """Cut from a tile; after an error that may pass, wait, open it anew and try again.

        A tile that does not come back is given up: the other sources on it get one attempt each.
        """
        waits = None if tile not in self._given_up else ()
        self._given_up.add(tile)
        result = patiently(lambda: self._attempt(tile, placement, resample), waits)
        self._given_up.discard(tile)
        return result

    def _attempt(self, tile: int, placement: Placement, resample: str) -> Cut:
        mosaic = self.mosaics[tile] = self.mosaics[tile] or Mosaic(self.files[tile])
        try:
            return cut_stamp(mosaic, placement, resample)
        except MosaicError as error:
            if may_pass(error):
                mosaic.close()
                self.mosaics[tile] = None
            raise

    def tiles_of(self, source: int) -> list[int]:
        """Return the tiles that hold the source's centre, the one farthest from its edge first."""
        margin = self._margin[:, source]
        order = np.argsort(-margin, kind="stable")
        return [int(tile) for tile in order if margin[tile] >= 0]

    def absence(self) -> Flag:
        """Return why a source that is on no readable tile has no stamp."""
        return self._absence

    def close(self) -> None:
        """Close the files."""
        for mosaic in self.mosaics:
            if mosaic:
                mosaic.close()


def _edge_distance(mosaic: Mosaic, grid: LocalGrid) -> np.ndarray:
    x, y = grid.centre.T
    height, width = mosaic.shape
    distance = np.minimum(np.minimum(x + 0.5, width - 0.5 - x), np.minimum(y + 0.5, height - 0.5 - y))
    return np.where(grid.inside(mosaic.shape), distance, -np.inf)


def cut_block(plan: BlockPlan, sources: Mapping[str, np.ndarray]) -> tuple[ShardContent, list[tuple[str, str]]]:
    """Cut the stamps of a chunk.

    Parameters
    ----------
    plan : BlockPlan
    sources : mapping
        ``id`` (source,) text; ``ra``, ``dec`` (source,) ICRS degrees; ``size_arcsec`` (source,), NaN where
        missing.

    Returns
    -------
    ShardContent
        One row a source, pixels for those without a blocking flag.
    list of (str, str)
        Mosaics that could not be read: file name and reason.

    Notes
    -----
    A stamp depends on its own source and mosaics alone, bit for bit.
    """
    ra, dec = np.asarray(sources["ra"], float), np.asarray(sources["dec"], float)
    bands = [_Band(tiles, ra, dec) for tiles in plan.mosaics]
    reference = None if plan.reference is None else _Band(plan.reference, ra, dec)
    try:
        cutter = _Cutter(plan, bands, reference, np.asarray(sources["size_arcsec"], float))
        for source in range(len(ra)):
            cutter.cut(source)
    finally:
        for band in [*bands, *([reference] if reference else [])]:
            band.close()
    failures = [failure for band in [*bands, *([reference] if reference else [])] for failure in band.failures]
    return cutter.content([str(identifier) for identifier in sources["id"]]), failures


class _Cutter:
    """Cuts source by source and collects the rows of the shard."""

    def __init__(self, plan: BlockPlan, bands: list[_Band], reference: _Band | None, size_arcsec: np.ndarray):
        self.stamp, self.bands, self.reference, self.size_arcsec = plan.stamp, bands, reference, size_arcsec
        count, channels = len(size_arcsec), len(bands)
        self.flags = np.zeros(count, np.uint32)
        self.rows = np.full(count, -1, np.int32)
        self.bad_fraction = np.full(count, np.nan, np.float32)
        self.signal = np.full(count, np.nan, np.float32)
        self.centre = np.full((count, channels, 2), np.nan)
        self.pixel_scale = np.full((count, channels), np.nan, np.float32)
        self.mosaic = np.full((count, channels), -1, np.int16)
        self.mosaics = [tile.name for band in bands for tile in band.files]
        self.stamps = np.empty((count, channels, plan.stamp.pixels, plan.stamp.pixels), np.float32)
        self.used = 0

    def cut(self, source: int) -> None:
        """Cut one source in every band; keep the stamp unless a blocking flag comes up."""
        tiles = [band.tiles_of(source) for band in self.bands]
        for channel, (band, found) in enumerate(zip(self.bands, tiles, strict=True)):
            if found:
                self._note_place(source, channel, found[0])
            else:
                self.flags[source] |= band.absence()
        if self.flags[source] & BLOCKING:
            return
        side = self._side_arcsec(source, tiles)
        if not side > 0:
            self.flags[source] |= Flag.BAD_SIZE if self.reference is None else self._no_side(source)
            return
        cuts: list[Cut] = []
        frame = np.eye(2)
        for channel, found in enumerate(tiles):
            tile, cut = self._best_cut(source, channel, found, frame, side)
            if cut is None:
                return
            if channel == 0:
                frame = self._frame(source, tile)
            cuts.append(cut)
        if not self.flags[source] & BLOCKING:
            self._keep(source, cuts)

    def _no_side(self, source: int) -> Flag:
        assert self.reference is not None
        return Flag.BAD_SIZE if self.reference.tiles_of(source) else self.reference.absence()

    def _side_arcsec(self, source: int, tiles: list[list[int]]) -> float:
        value, unit = self.stamp.side_value, self.stamp.side_unit
        if unit == "arcsec":
            return value
        if unit == "radii":
            return value * float(self.size_arcsec[source])
        band = self.bands[0] if self.reference is None else self.reference
        found = tiles[0] if self.reference is None else band.tiles_of(source)
        return value * float(_grid(band, found[0]).pixel_scale[source]) if found else float("nan")

    def _best_cut(
        self, source: int, channel: int, tiles: list[int], frame: np.ndarray, side: float
    ) -> tuple[int, Cut | None]:
        """Cut from the tile with the fewest invalid pixels, one with a valid centre before one without."""
        band, best, best_tile = self.bands[channel], None, -1
        for tile in tiles:
            native = side / float(_grid(band, tile).pixel_scale[source])
            if not self.stamp.min_side_pixels <= native <= self.stamp.max_side_pixels:
                self.flags[source] |= Flag.BAD_SIZE
                return -1, None
            cut = self._read(band, tile, self._placement(source, channel, tile, frame, side))
            if cut is not None and (best is None or _badness(cut) < _badness(best)):
                best, best_tile = cut, tile
            if best is not None and best.bad_fraction == 0:
                break
        if best is None:
            self.flags[source] |= Flag.UNREADABLE
            return -1, None
        self._note_place(source, channel, best_tile)
        self.flags[source] |= self._judge(best)
        return best_tile, best

    def _read(self, band: _Band, tile: int, placement: Placement) -> Cut | None:
        try:
            cut = band.cut(tile, placement, self.stamp.resample)
        except MosaicError as error:
            band.fail(band.files[tile], error)
            return None
        if self.stamp.values == "flux":
            area = np.float32(abs(np.linalg.det(placement.matrix)))
            cut = Cut(cut.pixels * area, cut.bad_fraction, cut.off_fraction, cut.centre_valid)
        return cut

    def _frame(self, source: int, tile: int) -> np.ndarray:
        """Return the arcsec to (east, north) (2, 2) a step of 1 arcsec along x, y of a tile of the first band."""
        grid = _grid(self.bands[0], tile)
        return grid.axes[source] / grid.axis_scale[source]

    def _placement(self, source: int, channel: int, tile: int, frame: np.ndarray, side: float) -> Placement:
        grid, step = _grid(self.bands[channel], tile), side / self.stamp.pixels
        jacobian = grid.jacobian[source]
        if self.stamp.orientation == "north":
            matrix = jacobian @ np.diag([-step, step])
        elif channel == 0:
            matrix = np.diag(step / grid.axis_scale[source])
        else:
            matrix = jacobian @ frame * step
        x, y = grid.centre[source]
        return Placement((float(x), float(y)), matrix, self.stamp.pixels)

    def _note_place(self, source: int, channel: int, tile: int) -> None:
        before = sum(len(band.files) for band in self.bands[:channel])
        grid = _grid(self.bands[channel], tile)
        self.centre[source, channel] = grid.centre[source]
        self.pixel_scale[source, channel] = grid.pixel_scale[source]
        self.mosaic[source, channel] = before + tile

    def _judge(self, cut: Cut) -> Flag:
        flags = Flag(0)
        if cut.off_fraction > 0:
            flags |= Flag.EDGE
        if cut.bad_fraction > cut.off_fraction:
            flags |= Flag.SOME_BAD_PIXELS
        if cut.bad_fraction > self.stamp.max_bad_fraction:
            return flags | (Flag.BAD_PIXELS if cut.centre_valid else Flag.NO_DATA)
        valid = cut.pixels[np.isfinite(cut.pixels)]
        if not valid.size:
            return flags | Flag.NO_DATA
        low, high = float(valid.min()), float(valid.max())
        return flags | Flag.FLAT if high - low <= _FLAT * max(abs(low), abs(high)) else flags

    def _keep(self, source: int, cuts: list[Cut]) -> None:
        block = self.stamps[self.used]
        for channel, cut in enumerate(cuts):
            block[channel] = cut.pixels
        self.rows[source] = self.used
        self.used += 1
        self.bad_fraction[source] = max(cut.bad_fraction for cut in cuts)
        signals = [signal_to_noise(cut.pixels) for cut in cuts]
        self.signal[source] = max((value for value in signals if not np.isnan(value)), default=np.nan)
        if self.stamp.min_signal is not None and not self.signal[source] >= self.stamp.min_signal:
            self.flags[source] |= Flag.LOW_SIGNAL

    def content(self, ids: list[str]) -> ShardContent:
        """Return the shard's content."""
        return ShardContent(
            ids=ids, flags=self.flags, rows=self.rows, bad_fraction=self.bad_fraction, signal=self.signal,
            centre=self.centre, pixel_scale=self.pixel_scale, mosaic=self.mosaic,
            stamps=self.stamps[: self.used], mosaics=self.mosaics,
        )


def _grid(band: _Band, tile: int) -> LocalGrid:
    grid = band.grids[tile]
    assert grid is not None
    return grid


def _badness(cut: Cut) -> tuple[bool, float]:
    return not cut.centre_valid, cut.bad_fraction

"""`cut_block`: from a plan (which mosaics, what geometry) and source positions to a block of stamps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from catmorph.errors import MosaicError
from catmorph.quality import BLOCKING, Flag
from catmorph.stamps.band import Band
from catmorph.stamps.block_whole import keep_whole
from catmorph.stamps.cut import Cut, Placement
from catmorph.stamps.judge import judge
from catmorph.stamps.mosaics import ImageFiles
from catmorph.stamps.placing import NORTH_UP, area, frame_of, stamp_matrix
from catmorph.stamps.rows import Rows
from catmorph.stamps.settings import StampSettings
from catmorph.stamps.signal import signal_to_noise
from catmorph.stamps.store import ShardContent


@dataclass(frozen=True)
class BlockPlan:
    """What decides the stamps of a chunk besides its sources.

    Attributes
    ----------
    mosaics : tuple (band) of tuple (tile) of ImageFiles
    reference : tuple (tile) of ImageFiles, or None
        Mosaics whose pixels count for a side in pixels (none of them: no stamp); None: the view's own first band's.
    stamp : StampSettings
    """

    mosaics: tuple[tuple[ImageFiles, ...], ...]
    reference: tuple[ImageFiles, ...] | None
    stamp: StampSettings


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
    bands = [Band(tiles, ra, dec) for tiles in plan.mosaics]
    reference = None if plan.reference is None else Band(plan.reference, ra, dec)
    used = [*bands, *([reference] if reference else [])]
    rows = Rows(plan.stamp, bands, len(ra))
    try:
        cutter = _Cutter(plan.stamp, bands, reference, np.asarray(sources["size_arcsec"], float), rows)
        keep_whole(rows, plan.stamp, bands, cutter.plain_sides())
        for source in np.flatnonzero(~rows.settled).tolist():
            cutter.cut(source)
    finally:
        for band in used:
            band.close()
    failures = [failure for band in used for failure in band.failures]
    return rows.content([str(identifier) for identifier in sources["id"]]), failures


@dataclass(frozen=True)
class _Cutter:
    """Cuts source by source."""

    stamp: StampSettings
    bands: list[Band]
    reference: Band | None
    size_arcsec: np.ndarray
    rows: Rows

    def plain_sides(self) -> np.ndarray:
        """Return the sides of all stamps in arcsec; NaN where a side in pixels needs another band to be looked at."""
        value, unit = self.stamp.side_value, self.stamp.side_unit
        if unit == "arcsec":
            return np.full(len(self.size_arcsec), float(value))
        if unit == "radii":
            return value * self.size_arcsec
        band = self.reference or self.bands[0]
        scale, tiles = np.full(len(self.size_arcsec), np.nan), band.first_tiles
        for tile in np.unique(tiles[tiles >= 0]).tolist():
            there = tiles == tile
            scale[there] = band.grid(tile).pixel_scale[there]
        return value * scale

    def cut(self, source: int) -> None:
        """Cut one source in every band; keep the stamp unless a blocking flag comes up."""
        tiles = [band.tiles_of(source) for band in self.bands]
        missing: dict[int, Flag] = {}
        for channel, (band, found) in enumerate(zip(self.bands, tiles, strict=True)):
            if found:
                self.rows.note_place(source, channel, found[0])
            else:
                missing[channel] = band.absence()
        if not self._can_do_without(source, missing):
            return
        side = self._side_arcsec(source, tiles)
        if not side > 0:
            self.rows.flags[source] |= Flag.BAD_SIZE if self.reference is None else self._no_side(source)
            return
        cuts: dict[int, Cut] = {}
        frame = None
        for channel, found in enumerate(tiles):
            if not found:
                continue
            tile, cut = self._best_cut(source, channel, found, frame, side)
            if cut is None:
                self._can_do_without(source, missing)
                return
            frame = frame_of(self.bands[channel].grid(tile), source) if frame is None else frame
            verdict = judge(cut, self.stamp)
            if verdict & Flag.NO_DATA:
                missing[channel] = verdict
            else:
                self.rows.flags[source] |= verdict
                cuts[channel] = cut
        if self._can_do_without(source, missing) and not self.rows.flags[source] & BLOCKING:
            assert frame is not None
            self._keep(source, cuts)
            turned = NORTH_UP if self.stamp.orientation == "north" else frame
            self.rows.axes[source] = turned * (side / self.stamp.pixels)

    def _can_do_without(self, source: int, missing: dict[int, Flag]) -> bool:
        """Tell whether the stamp is cut without the bands that are `missing`; where not, note the reasons."""
        reasons = Flag(0)
        for reason in missing.values():
            reasons |= reason
        # A mosaic that cannot be read now may be read tomorrow: that is a fault, not a band that was not observed.
        if len(missing) > self.stamp.may_be_missing(len(self.bands)) or reasons & Flag.UNREADABLE:
            self.rows.flags[source] |= reasons
            return False
        return True

    def _no_side(self, source: int) -> Flag:
        assert self.reference is not None
        return Flag.BAD_SIZE if self.reference.tiles_of(source) else self.reference.absence()

    def _side_arcsec(self, source: int, tiles: list[list[int]]) -> float:
        value, unit = self.stamp.side_value, self.stamp.side_unit
        if unit == "arcsec":
            return value
        if unit == "radii":
            return value * float(self.size_arcsec[source])
        return value * self._reference_scale(source, tiles)

    def _reference_scale(self, source: int, tiles: list[list[int]]) -> float:
        """Return arcsec a native pixel of the reference band, which a view that may lack bands may do without.

        A mosaic that ends beside the source still tells its scale there. Where the band has no mosaic at all, the first
        band that is there stands in for it, unless it could not be read.
        """
        band = self.bands[0] if self.reference is None else self.reference
        found = tiles[0] if self.reference is None else band.tiles_of(source)
        if not found and self.stamp.missing == "zero" and len(self.bands) > 1:
            if band.absence() == Flag.UNREADABLE:
                return float("nan")
            found = band.tiles_near(source)
            if not found:
                channel = next(channel for channel, there in enumerate(tiles) if there)
                band, found = self.bands[channel], tiles[channel]
        return float(band.grid(found[0]).pixel_scale[source]) if found else float("nan")

    def _best_cut(
        self, source: int, channel: int, tiles: list[int], frame: np.ndarray | None, side: float
    ) -> tuple[int, Cut | None]:
        """Cut from the tile with the fewest invalid pixels, one with a valid centre before one without."""
        band, best, best_tile = self.bands[channel], None, -1
        for tile in tiles:
            native = side / float(band.grid(tile).pixel_scale[source])
            if not self.stamp.min_side_pixels <= native <= self.stamp.max_side_pixels:
                self.rows.flags[source] |= Flag.BAD_SIZE
                return -1, None
            cut = self._read(band, tile, self._placement(source, channel, tile, frame, side))
            if cut is not None and (best is None or _badness(cut) < _badness(best)):
                best, best_tile = cut, tile
            if best is not None and best.bad_fraction == 0:
                break
        if best is None:
            self.rows.flags[source] |= Flag.UNREADABLE
            return -1, None
        self.rows.note_place(source, channel, best_tile)
        return best_tile, best

    def _read(self, band: Band, tile: int, placement: Placement) -> Cut | None:
        try:
            cut = band.cut(tile, placement, self.stamp.resample)
        except MosaicError as error:
            band.fail(band.files[tile], error)
            return None
        if self.stamp.values == "flux":
            cut = Cut(cut.pixels * area(placement.matrix), cut.bad_fraction, cut.off_fraction, cut.centre_valid)
        return cut

    def _placement(self, source: int, channel: int, tile: int, frame: np.ndarray | None, side: float) -> Placement:
        """Return where the stamp lies on a tile; the first band that is there, which has no `frame` yet, sets it."""
        grid = self.bands[channel].grid(tile)
        x, y = grid.centre[source]
        matrix = stamp_matrix(self.stamp, grid, source, frame, side / self.stamp.pixels)
        return Placement((float(x), float(y)), matrix, self.stamp.pixels)

    def _keep(self, source: int, cuts: dict[int, Cut]) -> None:
        block = self.rows.stamps[source]
        if len(cuts) < len(block):
            block[:] = np.nan
            self.rows.flags[source] |= Flag.MISSING_BAND
        for channel, cut in cuts.items():
            block[channel] = cut.pixels
        self.rows.kept[source] = True
        self.rows.bad_fraction[source] = max(cut.bad_fraction for cut in cuts.values())
        signals = [signal_to_noise(cut.pixels) for cut in cuts.values()]
        self.rows.signal[source] = max((value for value in signals if not np.isnan(value)), default=np.nan)


def _badness(cut: Cut) -> tuple[bool, float]:
    return not cut.centre_valid, cut.bad_fraction

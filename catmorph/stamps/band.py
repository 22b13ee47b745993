"""One band of a chunk: its tiles, and where the sources lie on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from catmorph.errors import MosaicError
from catmorph.patience import may_pass, patiently
from catmorph.quality import Flag
from catmorph.stamps.cut import Cut, Placement, cut_stamp
from catmorph.stamps.mosaics import ImageFiles
from catmorph.stamps.pixels import Mosaic
from catmorph.stamps.sky import LocalGrid, locate
from catmorph.stamps.whole import Batch, ParallelStamps, cut_whole


class Band:
    """The tiles of one band, the place of each source on them, and why a tile failed."""

    def __init__(self, tiles: tuple[ImageFiles, ...], ra: np.ndarray, dec: np.ndarray):
        self.files = tiles
        self._mosaics: list[Mosaic | None] = []
        self._grids: list[LocalGrid | None] = []
        self.failures: list[tuple[str, str]] = []
        self._given_up: set[int] = set()
        margin = [self._open(tile, ra, dec) for tile in tiles]
        self._margin = np.array(margin).reshape(len(tiles), len(ra))
        self._absence = Flag.OFF_IMAGE if tiles else Flag.NO_MOSAIC
        if None in self._grids:
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
        self._mosaics.append(mosaic)
        self._grids.append(grid)
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

    def cut_whole(self, tile: int, stamps: ParallelStamps, resample: str) -> Iterator[Batch]:
        """Yield what can be cut from a tile at once, see `catmorph.stamps.whole`; none, or no more, after an error."""
        mosaic = self._mosaics[tile]
        if mosaic is not None:
            # What fails here is tried again source by source, where errors are waited for, noted and told.
            with suppress(MosaicError):
                yield from cut_whole(mosaic, stamps, resample)

    def _attempt(self, tile: int, placement: Placement, resample: str) -> Cut:
        mosaic = self._mosaics[tile] = self._mosaics[tile] or Mosaic(self.files[tile])
        try:
            return cut_stamp(mosaic, placement, resample)
        except MosaicError as error:
            if may_pass(error):
                mosaic.close()
                self._mosaics[tile] = None
            raise

    def tiles_of(self, source: int) -> list[int]:
        """Return the tiles that hold the source's centre, the one farthest from its edge first."""
        margin = self._margin[:, source]
        order = np.argsort(-margin, kind="stable")
        return [int(tile) for tile in order if margin[tile] >= 0]

    @property
    def tile_counts(self) -> np.ndarray:
        """The number of tiles that hold the centre of every source (source,)."""
        return (self._margin >= 0).sum(axis=0)

    @property
    def first_tiles(self) -> np.ndarray:
        """The first of `tiles_of` for every source (source,); -1 where none holds it."""
        if not self.files:
            return np.full(self._margin.shape[1], -1)
        return np.where(self._margin.max(axis=0) >= 0, self._margin.argmax(axis=0), -1)

    def grid(self, tile: int) -> LocalGrid:
        """Return the place of the sources on a tile that could be opened."""
        grid = self._grids[tile]
        assert grid is not None
        return grid

    def tiles_near(self, source: int) -> list[int]:
        """Return the tiles whose projection reaches the source, whether they hold it or not."""
        return [tile for tile, grid in enumerate(self._grids) if grid and np.isfinite(grid.centre[source]).all()]

    def absence(self) -> Flag:
        """Return why a source that is on no readable tile has no stamp."""
        return self._absence

    def close(self) -> None:
        """Close the files."""
        for mosaic in self._mosaics:
            if mosaic:
                mosaic.close()


def _edge_distance(mosaic: Mosaic, grid: LocalGrid) -> np.ndarray:
    x, y = grid.centre.T
    height, width = mosaic.shape
    distance = np.minimum(np.minimum(x + 0.5, width - 0.5 - x), np.minimum(y + 0.5, height - 0.5 - y))
    return np.where(grid.inside(mosaic.shape), distance, -np.inf)

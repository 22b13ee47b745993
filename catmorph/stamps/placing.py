"""How a stamp's pixel grid lies on a mosaic: sides, frames and matrices, of one source or many, element by element."""

from __future__ import annotations

import numpy as np

from catmorph.stamps.settings import StampSettings
from catmorph.stamps.sky import LocalGrid

NORTH_UP = np.diag([-1.0, 1.0])
"""East and north a step along x and y of a stamp with north up and east left."""

Source = int | np.ndarray
"""The number of a source, or of several (n,)."""


def frame_of(grid: LocalGrid, source: Source) -> np.ndarray:
    """Return the arcsec to (east, north) a step of 1 arcsec along x, y of a mosaic (..., 2, 2)."""
    return grid.axes[source] / grid.axis_scale[source][..., None, :]


def stamp_matrix(
    stamp: StampSettings, grid: LocalGrid, source: Source, frame: np.ndarray | None, step: np.ndarray | float
) -> np.ndarray:
    """Return the mosaic pixels (x, y) a stamp pixel along x and y (..., 2, 2).

    Parameters
    ----------
    stamp : StampSettings
    grid : LocalGrid
        Of the mosaic.
    source : int or array (n,)
    frame : array (..., 2, 2), optional
        `frame_of` the band that gives the stamp its axes; None: this one does.
    step : float or array (n,)
        Arcsec a stamp pixel.
    """
    step = np.asarray(step, float)[..., None, None]
    if stamp.orientation == "north":
        return _product(grid.jacobian[source], NORTH_UP * step)
    if frame is None:
        return np.eye(2) * (step / grid.axis_scale[source][..., None, :])
    return _product(grid.jacobian[source], frame) * step


def area(matrix: np.ndarray) -> np.ndarray:
    """Return the mosaic pixels under a stamp pixel (...), float32."""
    return np.abs(matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]).astype(np.float32)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    # Not `@`: a library may multiply many small matrices in another way than one, and round otherwise.
    return left[..., :, 0, None] * right[..., None, 0, :] + left[..., :, 1, None] * right[..., None, 1, :]

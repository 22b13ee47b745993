"""World coordinates of sources on a mosaic: pixel positions and the local pixel grid."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy import units as u
from astropy.coordinates import ICRS, SkyCoord
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame
from astropy.wcs.wcsapi import high_level_objects_to_values

ARCSEC = np.deg2rad(1 / 3600)
_STEP = 0.1 * ARCSEC
_ROUND_TRIP_PIXELS = 0.05
_CONVERGED_PIXELS = 1e-9
_MOST_ITERATIONS = 50


@dataclass(frozen=True)
class LocalGrid:
    """Where sources are on a mosaic, and how its pixels lie on the sky there.

    Attributes
    ----------
    centre : array (source, 2)
        Pixel position x, y; 0-based pixel centres; NaN where the position is not on the projection.
    jacobian : array (source, 2, 2)
        Pixels (x, y) an arcsec towards (east, north).
    """

    centre: np.ndarray
    jacobian: np.ndarray

    @cached_property
    def pixel_scale(self) -> np.ndarray:
        """Side of a pixel in arcsec (source,): the root of its area."""
        return 1 / np.sqrt(np.abs(np.linalg.det(self.jacobian)))

    @cached_property
    def axes(self) -> np.ndarray:
        """Arcsec towards (east, north) a pixel along (x, y) (source, 2, 2): the inverse of the jacobian."""
        return np.linalg.inv(self.jacobian)

    @cached_property
    def axis_scale(self) -> np.ndarray:
        """Arcsec a pixel along x and y (source, 2)."""
        return np.linalg.norm(self.axes, axis=1)

    def inside(self, shape: tuple[int, int]) -> np.ndarray:
        """Return which centres (source,) lie on a pixel of an image of `shape` (ny, nx)."""
        x, y = self.centre.T
        with np.errstate(invalid="ignore"):
            return (x >= -0.5) & (y >= -0.5) & (x < shape[1] - 0.5) & (y < shape[0] - 0.5)


def locate(wcs: WCS, ra: np.ndarray, dec: np.ndarray) -> LocalGrid:
    """Find ICRS positions (degrees) on a mosaic, through its full WCS.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial, in any frame astropy knows, with any distortion.
    ra, dec : array (source,)

    Notes
    -----
    One call of the WCS for the sources and two steps of 0.1 arcsec to the east and north of each, so
    that distortions are in the local grid too. A pixel position counts only when it leads back to the sky
    position: outside a projection's or distortion's range the inverse can return anything.
    """
    position, east, north = _triad(ra, dec)
    steps = np.stack([position, position + _STEP * east, position + _STEP * north])
    lon = np.rad2deg(np.arctan2(steps[..., 1], steps[..., 0]))
    lat = np.rad2deg(np.arctan2(steps[..., 2], np.hypot(steps[..., 0], steps[..., 1])))
    pixels = _to_pixels(wcs, lon % 360, lat)
    jacobian = np.stack([pixels[1] - pixels[0], pixels[2] - pixels[0]], axis=-1) / (_STEP / ARCSEC)
    bad = ~np.isfinite(jacobian).all(axis=(1, 2)) | (np.abs(np.linalg.det(np.nan_to_num(jacobian))) == 0)
    bad |= ~_leads_back(wcs, pixels[0], position, np.where(bad[:, None, None], np.eye(2), jacobian))
    centre = np.where(bad[:, None], np.nan, pixels[0])
    return LocalGrid(centre, np.where(bad[:, None, None], np.eye(2), jacobian))


def _triad(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    position = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)
    east = np.stack([-np.sin(a), np.cos(a), np.zeros_like(a)], axis=-1)
    north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)], axis=-1)
    return position, east, north


def _to_pixels(wcs: WCS, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Return pixels (..., 2) of ICRS positions in degrees, of any shape; NaN where the projection has none."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", AstropyWarning)
        world = lon.ravel(), lat.ravel()
        if not _is_icrs(wcs):
            sky = SkyCoord(world[0] * u.deg, world[1] * u.deg, frame="icrs")
            world = high_level_objects_to_values(sky, low_level_wcs=wcs)
        focal = np.stack(wcs.wcs_world2pix(*world, 0), axis=-1)
        pixels = _undistorted(wcs, focal) if wcs.has_distortion else focal
    return pixels.reshape(*lon.shape, 2)


def _is_icrs(wcs: WCS) -> bool:
    """Tell whether the WCS gives right ascension and declination as they are here: most do, and need no objects."""
    return isinstance(wcs_to_celestial_frame(wcs), ICRS) and wcs.wcs.lng == 0


def _undistorted(wcs: WCS, focal: np.ndarray) -> np.ndarray:
    """Invert the distortion: pixels (point, 2) that it takes to the focal plane positions `focal`.

    astropy's all_world2pix iterates until the worst point has converged to 1e-4 pixels, so a point's last
    digits depend on its neighbours. Here each point stops by itself, when its correction is below 1e-9
    pixels or grows.
    """
    pixels = focal.copy()
    active = np.flatnonzero(np.isfinite(focal).all(axis=1))
    before = np.full(len(focal), np.inf)
    for _ in range(_MOST_ITERATIONS):
        if not active.size:
            break
        correction = wcs.pix2foc(pixels[active], 0) - focal[active]
        size = np.abs(correction).max(axis=1)
        better = size < before[active]
        pixels[active[better]] -= correction[better]
        before[active] = size
        active = active[better & (size > _CONVERGED_PIXELS)]
    return pixels


def _leads_back(wcs: WCS, pixels: np.ndarray, position: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    finite = np.isfinite(pixels).all(axis=1)
    result = np.zeros(len(pixels), dtype=bool)
    if not finite.any():
        return result
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", AstropyWarning)
        x, y = pixels[finite].T
        if _is_icrs(wcs):
            ra, dec = wcs.all_pix2world(x, y, 0)
        else:
            sky = wcs.pixel_to_world(x, y).icrs
            ra, dec = sky.ra.deg, sky.dec.deg
    back = _triad(ra, dec)[0]
    distance = np.linalg.norm(back - position[finite], axis=1) / ARCSEC
    pixel = 1 / np.sqrt(np.abs(np.linalg.det(jacobian[finite])))
    result[finite] = distance < _ROUND_TRIP_PIXELS * pixel
    return result

"""Mosaics with known content, and arrays as mosaics, for the tests of the pixel side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

ARCSEC = 1 / 3600


class ArrayMosaic:
    """An array (y, x) to cut stamps from."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = np.asarray(pixels, dtype=np.float32)
        self.shape = self.pixels.shape

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        return self.pixels[rows, columns].copy()


def gaussian(shape: tuple[int, int], centre: tuple[float, float], sigma: float, flux: float = 1.0) -> np.ndarray:
    """Return a round Gaussian (y, x) of `flux`, sampled at pixel centres; `centre` is x, y."""
    y, x = np.indices(shape)
    profile = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    return flux * profile / (2 * np.pi * sigma**2)


def moments(pixels: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return sum, centroid (x, y) and second moments (2, 2) of an image (y, x)."""
    values = np.asarray(pixels, dtype=np.float64)
    y, x = np.indices(values.shape)
    total = values.sum()
    centre = np.array([(values * x).sum(), (values * y).sum()]) / total
    offset = np.stack([x - centre[0], y - centre[1]])
    return float(total), centre, np.einsum("iyx,jyx,yx->ij", offset, offset, values) / total


def tan_wcs(
    ra: float, dec: float, *, scale: float = 0.1, shape: tuple[int, int] = (200, 200), angle: float = 0.0,
    flip: bool = False, projection: str = "TAN",
) -> WCS:
    """Return the WCS of a mosaic around `ra`, `dec`: `scale` arcsec a pixel, turned by `angle` degrees.

    `flip` mirrors the x axis (east to the right).
    """
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = f"RA---{projection}", f"DEC--{projection}"
    wcs.wcs.crval = ra, dec
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.cd = rotation @ np.diag([scale if flip else -scale, scale]) * ARCSEC
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def write_mosaic(path: Path, pixels: np.ndarray, wcs: WCS | None = None, **cards: Any) -> Path:
    """Write an image (y, x) with its WCS as the primary HDU; return its path."""
    header = wcs.to_header() if wcs else fits.Header()
    header.update(cards)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(pixels, header).writeto(path, overwrite=True)
    return path


def draw_sources(
    wcs: WCS, shape: tuple[int, int], ra: np.ndarray, dec: np.ndarray, sigma_arcsec: float, scale: float
) -> np.ndarray:
    """Return an image (y, x) of round Gaussians of surface brightness 1 at their peak."""
    image = np.zeros(shape)
    sigma = sigma_arcsec / scale
    reach = int(np.ceil(6 * sigma)) + 1
    for x, y in zip(*wcs.all_world2pix(ra, dec, 0), strict=True):
        column, row = round(float(x)), round(float(y))
        if not (-reach <= column < shape[1] + reach and -reach <= row < shape[0] + reach):
            continue
        columns = np.arange(max(column - reach, 0), min(column + reach + 1, shape[1]))
        rows = np.arange(max(row - reach, 0), min(row + reach + 1, shape[0]))
        distance = (columns[None, :] - x) ** 2 + (rows[:, None] - y) ** 2
        image[np.ix_(rows, columns)] += np.exp(-distance / (2 * sigma**2))
    return image.astype(np.float32)


def centroid(pixels: np.ndarray, start: tuple[float, float], sigma: float = 2.5) -> np.ndarray:
    """Return x, y of a Gaussian of `sigma` near `start`, by a weight of the same width that is moved onto it."""
    y, x = np.indices(pixels.shape)
    place = np.array(start, float)
    for _ in range(40):
        weight = pixels * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * sigma**2))
        # The product of two Gaussians of one width has its middle half way between theirs.
        place += 2 * (np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum() - place)
    return place
